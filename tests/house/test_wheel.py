"""Tests that builds are reproducible, and that the wheel has all files that `chordwise` reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from chordwise.cli.commands.version import VERSION
from tests.house.checkout import PACKAGES, ROOT, modules, tracked_files

PACKAGED = "chordwise/_packaged"


def build(source: Path, *, mode: int, modified_at: int) -> Mapping[str, bytes]:
    """Copy the checkout, build wheel and sdist from the copy, and return them by their names."""
    for file in tracked_files():
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        copy.chmod(mode)
        os.utime(copy, (modified_at, modified_at))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", "dist"],
        cwd=source,
        env={"SOURCE_DATE_EPOCH": "1700000000", "TZ": f"UTC-{mode % 7}"},
        check=True,
    )
    return {file.name: file.read_bytes() for file in (source / "dist").iterdir()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkout")


@pytest.fixture(scope="module")
def built(checkout: Path) -> Mapping[str, bytes]:
    return build(checkout, mode=0o644, modified_at=1_600_000_000)


@pytest.fixture(scope="module")
def wheel(checkout: Path, built: Mapping[str, bytes]) -> zipfile.Path:
    (name,) = (name for name in built if name.endswith(".whl"))
    return zipfile.Path(checkout / "dist" / name)


def names(wheel: zipfile.Path) -> set[str]:
    return set(wheel.root.namelist())


def below(folder: str) -> set[str]:
    """Return the tracked files below a folder, by their paths in the checkout."""
    paths = (file.relative_to(ROOT) for file in tracked_files())
    return {str(path) for path in paths if path.parts[0] == folder}


def test_builds_are_reproducible(built: Mapping[str, bytes], tmp_path: Path) -> None:
    """Another folder, time, time zone and permissions of files give the same bytes."""
    again = build(tmp_path / "elsewhere", mode=0o600, modified_at=1_690_000_000)

    assert sorted(built) == [f"chordwise-{VERSION}-py3-none-any.whl", f"chordwise-{VERSION}.tar.gz"]
    assert [name for name in built if built[name] != again[name]] == []


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("migrations", "migrations/"),
        ("samples", "samples/"),
        ("chordwise", "/prompts/"),
        ("chordwise", "/web/templates/"),
        ("chordwise", "/web/static/vendor/"),
    ],
)
def test_data_is_packaged(wheel: zipfile.Path, folder: str, part: str) -> None:
    place = "" if folder == "chordwise" else f"{PACKAGED}/"
    expected = {f"{place}{name}" for name in below(folder) if part in name}

    assert expected
    assert expected <= names(wheel)


def test_settings_license_and_entry_point_are_packaged(wheel: zipfile.Path) -> None:
    """An installation puts `chordwise` on the PATH, with the version that it prints."""
    metadata = f"chordwise-{VERSION}.dist-info"

    assert {f"{PACKAGED}/{name}" for name in ("chordwise.example.toml", "alembic.ini")} | {
        *("chordwise/py.typed", f"{metadata}/METADATA"),
        *(f"{metadata}/licenses/{name}" for name in ("LICENSE", "NOTICE")),
    } <= names(wheel)
    entry_points = (wheel / metadata / "entry_points.txt").read_text("utf-8")
    assert "chordwise = chordwise.cli:main" in entry_points


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
