"""The pages with the lowest versions of their libraries that pyproject.toml allows.

`make nightly` runs the whole suite with the lowest versions of all dependencies.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.processes import ROOT

LIBRARIES = {"itsdangerous", "jinja2", "python-multipart", "starlette", "uvicorn"}
_ENTRY = re.compile(r"^(\S+)==.*\n(?: {4}.*\n)*", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the libraries into a folder; skip the test if they cannot be downloaded."""
    path = tmp_path_factory.mktemp("lowest")
    lock = (ROOT / "requirements-lowest.lock").read_text("utf-8")
    entries = [entry[0] for entry in _ENTRY.finditer(lock) if entry[1] in LIBRARIES]
    assert len(entries) == len(LIBRARIES)
    (path / "some.lock").write_text("".join(entries), "utf-8")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
    options = ["--require-hashes", "--requirement", str(path / "some.lock")]
    installed = subprocess.run(
        [*command, *options, "--target", str(path)], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        if request.config.getoption("--require-browser"):
            pytest.fail(installed.stderr)
        pytest.skip("the libraries cannot be downloaded")
    return path


_RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import pytest, starlette
print("starlette", starlette.__version__)
sys.exit(pytest.main(sys.argv[2:]))
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_access_is_controlled_with_the_lowest_versions(folder: Path) -> None:
    """The tests of access and of the server pass with them; those in a browser are left out."""
    modules = ("tests/web/test_access.py", "tests/web/test_server.py")
    options = ["--quiet", "-p", "no:cacheprovider", "-W", "default", "-k", "not a_user_signs_in"]

    tests = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder), *options, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert tests.returncode == 0, tests.stdout[-4_000:]
    version = tests.stdout.partition("\n")[0].split()[-1]
    assert list(folder.glob(f"starlette-{version}.dist-info"))
