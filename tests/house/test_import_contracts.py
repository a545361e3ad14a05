"""Every package is under the contracts that `make contracts` checks."""

from __future__ import annotations

import tomllib

from tests.house.checkout import PACKAGES, ROOT


def test_every_package_is_under_contract() -> None:
    """A package that import-linter does not know would be free to import anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    linted = settings["tool"]["importlinter"]["root_packages"]
    packed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert set(PACKAGES) <= set(linted)
    assert set(packed) == set(PACKAGES)
