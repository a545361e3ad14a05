"""Tests of the lock files: they fit pyproject.toml and each other, have hashes, and name no index.

`make lock-check` compares them with the output of `make lock`, which needs the network.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.house.checkout import ROOT

LOCKS = sorted(ROOT.glob("requirements*.lock"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One entry of a lock file."""

    name: str
    version: Version
    hashes: int


def pins(lock: Path) -> Iterator[Pin]:
    """Yield the entries of a lock file in order."""
    joined = lock.read_text("utf-8").replace("\\\n", " ")
    for line in joined.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition("--hash")[0].strip())
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            yield Pin(
                name=canonicalize_name(requirement.name),
                version=Version(specifier.version),
                hashes=len(HASH.findall(line)),
            )


def required(lock: str) -> list[str]:
    """Return the requirements of pyproject.toml for a lock file."""
    runtime, groups = PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]
    extras = PROJECT["project"]["optional-dependencies"]
    tested = ("tokenizers", "ocr", "learning", "encoder", "remote", "otel", "mcp")
    return {
        "requirements.lock": [*runtime],
        "requirements-audit.lock": [*groups["audit"]],
        "requirements-bench.lock": [*groups["bench"]],
        "requirements-build.lock": [*groups["build"]],
        "requirements-dev.lock": [
            *(*runtime, *groups["dev"]),
            *(requirement for extra in tested for requirement in extras[extra]),
        ],
        "requirements-encoder.lock": [*runtime, *extras["encoder"]],
        "requirements-install.lock": [*groups["install"]],
        "requirements-learning.lock": [*runtime, *extras["learning"]],
        "requirements-local.lock": [*runtime, *extras["local"]],
        "requirements-lowest.lock": [*runtime],
        "requirements-mcp.lock": [*runtime, *extras["mcp"]],
        "requirements-nightly.lock": [*groups["nightly"]],
        "requirements-ocr.lock": [*runtime, *extras["ocr"]],
        "requirements-otel.lock": [*runtime, *extras["otel"]],
        "requirements-remote.lock": [*runtime, *extras["remote"]],
        "requirements-site.lock": [*groups["site"]],
        "requirements-smollm2.lock": [*groups["smollm2"]],
    }[lock]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned(lock: Path) -> None:
    pinned: dict[str, set[Version]] = {}
    for pin in pins(lock):
        pinned.setdefault(pin.name, set()).add(pin.version)

    for text in required(lock.name):
        requirement = Requirement(text)
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, f"{lock.name} lacks {text}: run make lock"
        assert all(requirement.specifier.contains(version) for version in versions), text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_index_or_path(lock: Path) -> None:
    """The installing environment decides about the index."""
    locked = list(pins(lock))
    places = r"(?m)^\s*(?:-i|--(?:extra-)?index-url|--find-links)\b|\w+://"

    assert locked
    assert [pin.name for pin in locked if pin.hashes == 0] == []
    assert re.findall(places, lock.read_text("utf-8")) == []


def test_the_lock_files_agree() -> None:
    """All except two can be installed together, so the tested versions are used.

    LiteLLM requires other versions, and the lowest versions are only tested.
    """
    versions: dict[str, set[tuple[Version, ...]]] = {}
    for lock in LOCKS:
        if lock.name not in ("requirements-nightly.lock", "requirements-lowest.lock"):
            locked = list(pins(lock))
            for name in {pin.name for pin in locked}:
                these = sorted(pin.version for pin in locked if pin.name == name)
                versions.setdefault(name, set()).add(tuple(these))

    assert {name: pinned for name, pinned in versions.items() if len(pinned) > 1} == {}


def test_the_build_requirements_are_locked() -> None:
    """The group of requirements-build.lock repeats the requirements of [build-system]."""
    declared = PROJECT["build-system"]["requires"]

    assert sorted(PROJECT["dependency-groups"]["build"]) == sorted(declared)
