"""Tests that the contracts of `make contracts` cover every package."""

from __future__ import annotations

import tomllib

from tests.house.checkout import PACKAGES, ROOT


def test_every_package_is_under_contract() -> None:
    """import-linter does not check packages that it does not know."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]

    assert set(PACKAGES) <= set(tool["importlinter"]["root_packages"])
    assert set(PACKAGES) == set(tool["hatch"]["build"]["targets"]["wheel"]["packages"])
