"""Tests of deriving file limits from the memory of the container or the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.readers import limits
from chordwise.settings import ReaderSettings


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", "ascii")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that replaces /sys/fs/cgroup; its file `groups` names the group."""
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits, "_MOUNT", tmp_path)
    return tmp_path


def test_without_control_groups_the_memory_of_the_machine_applies(kernel: Path) -> None:
    machine = limits.memory_megabytes()
    write(kernel / "groups", "0::/")
    write(kernel / "memory.max", "max")

    assert limits.memory_megabytes() == machine > 0


def test_the_lowest_limit_of_a_group_and_its_parents_applies(kernel: Path) -> None:
    """In version 2 each group is limited by its parents."""
    write(kernel / "groups", "0::/pod/container")
    write(kernel / "pod" / "memory.max", str(100 << 20))
    write(kernel / "pod" / "container" / "memory.max", str(200 << 20))

    assert limits.memory_megabytes() == 100


def test_a_version_1_container_sees_its_own_group_as_the_root(kernel: Path) -> None:
    """The listed path is that of the host and does not exist inside."""
    write(kernel / "groups", "5:cpu:/docker/1\n4:memory:/docker/1")
    write(kernel / "memory" / "memory.limit_in_bytes", str(300 << 20))

    assert limits.memory_megabytes() == 300


@pytest.mark.parametrize(
    ("megabytes", "memory", "file"), [(256, 48, 48), (1_536, 372, 256), (16_384, 1_024, 256)]
)
def test_limits_grow_with_memory_up_to_a_maximum(megabytes: int, memory: int, file: int) -> None:
    measured = limits.file_limits(ReaderSettings(), megabytes)

    assert (measured.memory_megabytes, measured.max_file_megabytes) == (memory, file)


def test_a_configured_limit_overrides_the_measured_memory() -> None:
    settings = ReaderSettings(memory_megabytes=2_000, max_file_megabytes=700, max_characters=10)

    measured = limits.file_limits(settings, 512)

    assert (measured.memory_megabytes, measured.max_file_megabytes) == (2_000, 700)
    assert measured.max_text_bytes == 40
