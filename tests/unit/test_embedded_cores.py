"""How many cores there are, and how a local model's server is fitted to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.embedded import llama, processes
from chordwise.settings import Settings

LOCAL = "local/model.gguf"


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
def test_a_quota_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], usable: int
) -> None:
    """Of either version of cgroups, and of the groups above."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)), raising=False)
    (tmp_path / "own").write_text("0::/a/b\n", "utf-8")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")

    assert processes.usable(tmp_path, tmp_path / "own") == usable


@pytest.mark.parametrize(
    ("machine", "threads", "slots"), [(1, 1, 1), (2, 1, 1), (4, 3, 2), (8, 7, 2), (64, 16, 2)]
)
def test_slots_and_threads_fit_the_cores(
    monkeypatch: pytest.MonkeyPatch, machine: int, threads: int, slots: int
) -> None:
    """One core is left for the other processes; a second slot needs cores of its own."""
    monkeypatch.setattr(processes, "usable", lambda: machine)

    assert (llama.threads(), llama.slots(Settings())) == (threads, slots)


def test_a_worker_takes_as_many_chunks_as_there_are_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the settings say how many, or another model may be asked, which has its own limits."""
    monkeypatch.setattr(processes, "usable", lambda: 2)
    remote = {"house": {"provider": "openai", "model": "m", "base_url": "http://h/v1"}}

    assert llama.worker_concurrency(Settings(model=LOCAL)) == 1
    assert llama.worker_concurrency(Settings(model=LOCAL, fallback=("extractive",))) == 1
    assert llama.worker_concurrency(Settings(model=LOCAL, worker={"concurrency": 4})) is None
    assert llama.worker_concurrency(Settings()) is None
    mixed = Settings(model=LOCAL, fallback=("house",), models=remote)
    assert llama.worker_concurrency(mixed) is None
