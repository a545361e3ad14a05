"""Kinds that register themselves: the modules of a package, or an object in each of them.

The name of a kind is that of its module. So the names are known from a listing of the folder, and a
module is imported when its kind is used: the list of commands imports no command, and the settings
know the name of a provider without its HTTP client.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, cast

Kind = TypeVar("Kind")


class Kinds(Mapping[str, Kind]):
    """The kinds in a package by name, in alphabetical order."""

    def __init__(self, package: str, attribute: str = "") -> None:
        self._package = package
        self._attribute = attribute

    def __iter__(self) -> Iterator[str]:
        """Yield the names without importing the modules."""
        return iter(self._names())

    def __len__(self) -> int:
        """Return the number of kinds."""
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        """Return whether there is a kind of this name, without importing its module."""
        return name in self._names()

    def __getitem__(self, name: str) -> Kind:
        """Import the module of a kind, and return the kind.

        Raises:
            KeyError: There is no such kind.
        """
        if name not in self._names():
            raise KeyError(name)
        module = importlib.import_module(f"{self._package}.{name}")
        return cast("Kind", getattr(module, self._attribute) if self._attribute else module)

    def first_line(self, name: str) -> str:
        """Return the first line of the module of a kind, without importing it."""
        module = importlib.util.find_spec(f"{self._package}.{name}")
        with Path(getattr(module, "origin", "")).open(encoding="utf-8") as file:
            return file.readline().rstrip("\n")

    def _names(self) -> Collection[str]:
        return _modules(tuple(importlib.import_module(self._package).__path__))


@lru_cache
def _modules(folders: tuple[str, ...]) -> Collection[str]:
    return dict.fromkeys(sorted(module.name for module in pkgutil.iter_modules(folders)))
