"""A `chordwise.toml` with small chunks and short timeouts, for processes that tests start."""

from __future__ import annotations

CONCURRENCY = 4
LEASE_SECONDS = 4.0
INTERVAL_SECONDS = 1.0

_TEXT = f"""
model = "peer"

[models.peer]
provider = "openai"
model = "peer"
base_url = "{{base_url}}"
{{model}}

[pipeline]
chunk_tokens = 400
lease_seconds = {LEASE_SECONDS}
heartbeat_seconds = 1
recovery_interval_seconds = {INTERVAL_SECONDS}
{{pipeline}}

[embedded]
start = false

[worker]
concurrency = {CONCURRENCY}
processes = 1
shutdown_grace_seconds = 1
{{worker}}
{{more}}
"""


def configuration(
    base_url: str, *, model: str = "", pipeline: str = "", worker: str = "", more: str = ""
) -> str:
    """Return the text; arguments are further lines of their tables, `more` is further tables."""
    return _TEXT.format(base_url=base_url, model=model, pipeline=pipeline, worker=worker, more=more)
