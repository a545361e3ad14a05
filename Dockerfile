# One image for every process: `python -m worker`, `python -m scheduler`, `chordwise …`.

# docker-compose.yml sets this image by its digest; see docs/deployment.md.
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
# The lock file to install: requirements-ocr.lock adds OCR, requirements-learning.lock adds
# recalibration, and "requirements-ocr.lock -r requirements-learning.lock" adds both.
ARG LOCK=requirements.lock
# Dependencies are installed first, so that this layer is cached until a lock file changes.
COPY requirements.lock requirements-ocr.lock requirements-learning.lock requirements-build.lock ./
COPY requirements-encoder.lock requirements-remote.lock requirements-otel.lock requirements-mcp.lock ./
RUN python -m venv --without-pip /opt/chordwise \
    && python -m pip --python /opt/chordwise install --require-hashes -r ${LOCK} \
    && python -m pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE alembic.ini chordwise.example.toml ./
COPY chordwise chordwise
COPY worker worker
COPY scheduler scheduler
COPY migrations migrations
COPY samples samples
RUN python -m hatchling build --target wheel \
    && python -m pip --python /opt/chordwise install --no-deps dist/*.whl

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 chordwise \
    && useradd --uid 10001 --gid chordwise --no-create-home --shell /usr/sbin/nologin chordwise \
    && install --directory --owner=chordwise --group=chordwise --mode=0700 \
        /var/lib/chordwise /var/lib/chordwise/web
COPY --from=build /opt/chordwise /opt/chordwise
ENV PATH=/opt/chordwise/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CHORDWISE_HOME=/var/lib/chordwise \
    CHORDWISE_LOGGING__FORMAT=json
USER 10001:10001
WORKDIR /var/lib/chordwise
CMD ["chordwise", "--help"]
