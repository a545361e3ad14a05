"""Tests of the Makefile and the CI script."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml

from tests.house.checkout import ROOT

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],  # noqa: S607 - make from the PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_target_is_in_the_help() -> None:
    (phony,) = re.findall(r"(?m)^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE)
    targets = set(phony.replace("\\\n", " ").split())

    assert set(re.findall(r"(?m)^  make (\S+) +\S", make("help").stdout)) == targets


def test_hooks_run_targets_of_the_makefile() -> None:
    """A commit is checked by the same commands as CI."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]

    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]

    assert {repo["repo"] for repo in hooks} == {"local"}
    assert [entry for entry in entries if make("-n", *entry.split()[1:]).returncode] == []


@pytest.mark.parametrize("version", ["3.9", "3.10"])
def test_an_old_python_is_refused_with_a_hint(
    tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    """Nothing is installed, and the message says what to do."""
    folder = tmp_path_factory.mktemp("old")
    old = folder / "python3"
    # Prints a version, and fails the comparison with 3.11.
    old.write_text(f'#!/bin/sh\ncase "$2" in *exit*) exit 1;; *) echo {version};; esac\n')
    old.chmod(0o755)

    outcome = make("demo", f"PYTHON={old}", f"VENV={folder}/venv")

    assert outcome.returncode != 0
    assert f"needs Python 3.11 or newer, and {old} is {version}" in outcome.stderr
    assert not (folder / "venv").exists()


def test_ci_can_be_started() -> None:
    """CI runs the checks, the tests and the demo."""
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert all(word in script.read_text("utf-8") for word in ("check", "test", "demo"))
