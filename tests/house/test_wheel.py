"""Tests that the wheel works outside a checkout: it has all files that `chordwise` reads."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from chordwise.cli.commands.version import VERSION
from tests.house.checkout import PACKAGES, ROOT, modules, tracked_files

PACKAGED = "chordwise/_packaged"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Build the wheel with the installed packages, and open it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
    )
    (file,) = folder.glob("*.whl")
    return zipfile.Path(file)


def names(wheel: zipfile.Path) -> set[str]:
    return set(wheel.root.namelist())


def below(folder: str) -> set[str]:
    """Return the tracked files below a folder, by their paths in the checkout."""
    paths = (file.relative_to(ROOT) for file in tracked_files())
    return {str(path) for path in paths if path.parts[0] == folder}


@pytest.mark.parametrize("folder", ["migrations", "samples"])
def test_data_is_packaged(wheel: zipfile.Path, folder: str) -> None:
    expected = {f"{PACKAGED}/{name}" for name in below(folder)}

    assert expected
    assert expected <= names(wheel)


def test_files_are_packaged(wheel: zipfile.Path) -> None:
    """Example settings, prompts, packs, files of the pages, license and type marker."""
    for folder in ("/prompts/", "/web/templates/", "/web/static/vendor/"):
        expected = {name for name in below("chordwise") if folder in name}

        assert expected
        assert expected <= names(wheel)
    assert f"{PACKAGED}/chordwise.example.toml" in names(wheel)
    assert f"{PACKAGED}/alembic.ini" in names(wheel)
    assert "chordwise/py.typed" in names(wheel)
    for file in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"licenses/{file}") for name in names(wheel))


def test_the_notice_names_the_files_of_others(wheel: zipfile.Path) -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    licenses = {name for name in names(wheel) if name.endswith(".LICENSE")}
    scripts = {name for name in names(wheel) if "/static/vendor/" in name and name.endswith(".js")}

    assert {name.rpartition("/")[2] for name in licenses} == set(
        re.findall(r"\S+\.LICENSE", notice)
    )
    assert len(licenses) == len(scripts)


def test_every_module_is_packaged_and_no_test(wheel: zipfile.Path) -> None:
    ours = {str(file.relative_to(ROOT)) for file in modules(*PACKAGES)}
    packed = {name for name in names(wheel) if name.endswith(".py")}

    assert {name for name in packed if not name.startswith(PACKAGED)} == ours


def test_the_command_is_installed(wheel: zipfile.Path) -> None:
    """An installation puts `chordwise` on the PATH."""
    (entry_points,) = (name for name in names(wheel) if name.endswith("entry_points.txt"))

    assert "chordwise = chordwise.cli:main" in (wheel / entry_points).read_text("utf-8")


def test_migrations_are_found_outside_a_checkout(wheel: zipfile.Path, tmp_path: Path) -> None:
    """The newest revision is found after the wheel is unpacked elsewhere."""
    wheel.root.extractall(tmp_path / "site")
    code = "from chordwise.storage import revisions as m; print(m.__file__, m.newest_revision())"

    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    newest = max(file.stem for file in (ROOT / "migrations" / "versions").glob("*.py"))
    assert said.split() == [str(tmp_path / "site/chordwise/storage/revisions.py"), newest]


def test_the_wheel_has_the_version_that_the_command_prints(wheel: zipfile.Path) -> None:
    assert f"chordwise-{VERSION}.dist-info/METADATA" in names(wheel)
