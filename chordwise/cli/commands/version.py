"""Operation: Show the versions of Chordwise, Python and the schema."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

VERSION = "0.1.0"
"""As in pyproject.toml; reading it from the package takes a tenth of the command's time."""
EPILOG = "Example: chordwise version --json"
_PACKAGE = Path(__file__).resolve().parents[2]


def version(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Show the versions of Chordwise, Python and the schema."""
    packaged = _PACKAGE / "_packaged" / "migrations"
    folder = packaged if packaged.is_dir() else _PACKAGE.parent / "migrations"
    # By the names of the files: Alembic is slow to load.
    revision = max(file.stem for file in (folder / "versions").glob("[0-9]*.py"))
    info = {
        "chordwise": VERSION,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "schema_revision": revision,
    }
    if as_json:
        sys.stdout.write(f"{json.dumps({'schema_version': 1, **info})}\n")
        return
    about = f"(Python {info['python']}, {info['platform']}, schema {revision})"
    sys.stdout.write(f"chordwise {VERSION} {about}\n")
