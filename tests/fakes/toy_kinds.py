"""Kinds in folders outside of the project, which its packages find like their own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from chordwise.prompts import library

_MAIN = """
import importlib, sys
for folder in {folders}:
    importlib.import_module(folder.rpartition("/")[2]).__path__.append(folder)
from chordwise.cli import main
main()
"""


@contextmanager
def added(folder: Path, package: str, files: Mapping[str, str]) -> Iterator[None]:
    """Write files to a folder that a package finds its kinds in, inside the block."""
    inside = folder / package
    inside.mkdir()
    for name, content in files.items():
        (inside / name).write_text(content, "utf-8")
    module = importlib.import_module(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "__path__", [*module.__path__, str(inside)])
        _forget()
        yield
    for name in files:
        sys.modules.pop(f"{package}.{Path(name).stem}", None)
    _forget()


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process that finds the kinds in the same folders."""
    folders = [str(path) for path in folder.iterdir() if path.name.startswith("chordwise.")]
    script = _MAIN.format(folders=folders)
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


def _forget() -> None:
    """Clear what is derived from the kinds once for each process."""
    library.released.cache_clear()
    library.latest.cache_clear()
