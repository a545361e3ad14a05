"""Who may import whom, as pyproject.toml says; and that the rules would notice."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from tests.house.checkout import PACKAGES, ROOT


def lint(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a process of its own, over the packages of the checkout."""
    command = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_are_kept() -> None:
    outcome = lint()

    assert outcome.returncode == 0, outcome.stdout
    assert "0 broken" in outcome.stdout


def test_every_package_is_under_contract() -> None:
    """A package that import-linter does not know would be free to import anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

    linted = settings["tool"]["importlinter"]["root_packages"]
    packed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert set(PACKAGES) <= set(linted)
    assert set(packed) == set(PACKAGES)
