"""Tests of the cores and memory of a container or machine, and of file limits by its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise import machine
from chordwise.readers import limits
from chordwise.settings import ReaderSettings


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", "ascii")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that replaces /sys/fs/cgroup; its file `groups` names the group."""
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "_MOUNT", tmp_path)
    return tmp_path


def test_without_control_groups_the_memory_of_the_machine_applies(kernel: Path) -> None:
    whole = machine.memory_megabytes()
    write(kernel / "groups", "0::/")
    write(kernel / "memory.max", "max")

    assert machine.memory_megabytes() == whole > 0


def test_the_lowest_limit_of_a_group_and_its_parents_applies(kernel: Path) -> None:
    """In version 2 each group is limited by its parents."""
    write(kernel / "groups", "0::/pod/container")
    write(kernel / "pod" / "memory.max", str(100 << 20))
    write(kernel / "pod" / "container" / "memory.max", str(200 << 20))

    assert machine.memory_megabytes() == 100


def test_a_version_1_container_sees_its_own_group_as_the_root(kernel: Path) -> None:
    """The listed path is that of the host and does not exist inside."""
    write(kernel / "groups", "5:cpu:/docker/1\n4:memory:/docker/1")
    write(kernel / "memory" / "memory.limit_in_bytes", str(300 << 20))

    assert machine.memory_megabytes() == 300


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_the_cpu_quota_of_a_container_is_respected(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], usable: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)), raising=False)
    write(kernel / "groups", "4:cpu,cpuacct:/docker/1\n0::/a/b")
    for name, content in files.items():
        write(kernel / name, content)

    assert machine.usable_cores() == usable


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
