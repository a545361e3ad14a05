"""Tests that the contracts of `make contracts` cover every package."""

from __future__ import annotations

import tomllib

from tests.house.checkout import PACKAGES, ROOT


def test_every_package_is_under_contract() -> None:
    """import-linter does not check packages that it does not know."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    linted = settings["tool"]["importlinter"]["root_packages"]
    packed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert set(PACKAGES) <= set(linted)
    assert set(packed) == set(PACKAGES)
