"""F01 to F03: files that are written slowly, and files that are dropped again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from tests.faults.cluster import Cluster
from tests.faults.drops import STABILITY_SECONDS, WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.provider import HOLD

pytestmark = pytest.mark.thorough


def is_reused(note: JsonObject) -> bool:
    """Return whether a note states that the content was analyzed before."""
    (intake,) = json_values.objects(note["intakes"])
    jobs = json_values.objects(intake["jobs"])
    return bool(intake["same_as_intake"]) or any(job["reused_from"] for job in jobs)


def test_equal_contents_are_analyzed_once(cluster: Cluster, experiment: Experiment) -> None:
    """F02: each content is analyzed once, regardless of number and names of its files."""
    experiment.begin(
        "F02", "the same file twice, its content under two names, new content under one"
    )
    drops = cluster.open_inbox()
    cluster.start_watching()
    text, later = cluster.documents.text(1), cluster.documents.text(2)

    drops.drop("one.txt", text)
    drops.drop("two.txt", text)
    drops.wait_until_delivered(2, 60, cluster.story)
    drops.drop("one.txt", text)
    drops.wait_until_delivered(3, 60, cluster.story)
    calls = len(cluster.provider.requests)
    experiment.fault_is_over()
    drops.drop("one.txt", later)
    drops.wait_until_delivered(4, 60, cluster.story)

    told = sorted(map(is_reused, drops.notes()))
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"{calls} call for three files of one content",
    )
    assert calls == 1
    assert told == [False, False, True, True]
    assert {f"one{number}.txt" for number in ("", " (2)", " (3)")} < {
        path.name for path in drops.folders.done.iterdir()
    }


def test_changes_after_the_claim_are_new_documents(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F03: answers about a file that is deleted, replaced or truncated meanwhile are delivered."""
    experiment.begin("F03", "files deleted, replaced, truncated during their analysis")
    drops = cluster.open_inbox()
    cluster.start_watching()
    cluster.provider.treat(HOLD, times=10)
    names = ("deleted.txt", "replaced.txt", "truncated.txt")
    claimed = [drops.drop(name, cluster.documents.text(at)) for at, name in enumerate(names)]
    drops.folders.inbox.joinpath("withdrawn.txt").write_text("A short life.", "utf-8")
    drops.folders.inbox.joinpath("withdrawn.txt").unlink()
    cluster.wait_for("SELECT count(*) = 3 FROM inbox_files WHERE status = 'submitted'")

    for path in claimed:
        drops.withdraw(path)
    claimed[0].unlink()
    drops.drop("replaced.txt", cluster.documents.text(10))
    drops.drop("truncated.txt", "")
    cluster.wait_for("SELECT count(*) = 5 FROM inbox_files WHERE status <> 'claimed'")
    cluster.provider.forgive()
    experiment.fault_is_over()

    drops.wait_until_delivered(5, 60, cluster.story)
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    reasons = [sorted(str(note["reason"]) for note in drops.notes(name)) for name in names]
    # The new version of the last one has no analysis, and is moved before the earlier answers.
    assert reasons == [["vanished"], ["None", "changed"], ["None", "vanished"]]
    assert {path.name for path in drops.folders.failed.glob("*.txt")} == {"truncated.txt"}
    assert drops.notes("withdrawn.txt") == []


PAUSE_SECONDS = 3 * STABILITY_SECONDS
# Corresponds to sixty seconds at the default stability delay, which is five times as long.
WRITING_SECONDS = 12 * STABILITY_SECONDS
_PARTS = 8


def parts(cluster: Cluster, number: int) -> list[str]:
    """Return a text in parts of at least a sentence."""
    text = cluster.documents.text(number, chunks=4)
    size = len(text) // _PARTS + 1
    return [text[start : start + size] for start in range(0, len(text), size)]


def write_held_open(path: Path, written: Iterable[str], pause_seconds: float) -> None:
    """Write one part after the other into a file that stays open."""
    with path.open("w", encoding="utf-8") as file:
        for part in written:
            file.write(part)
            file.flush()
            time.sleep(pause_seconds)  # noqa: TID251 - the tested pause


def write_reopened(path: Path, written: Iterable[str], pause_seconds: float) -> None:
    """Append each part by opening the file again, as a script with `>>` does."""
    for part in written:
        with path.open("a", encoding="utf-8") as file:
            file.write(part)
        time.sleep(pause_seconds)  # noqa: TID251 - the tested pause


def at_once(*tasks: Callable[[], None]) -> None:
    """Run all tasks concurrently, and wait for them."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def expect(drops: Drops, *contents: Iterable[str]) -> None:
    """Record contents that are written directly into the inbox."""
    for written in contents:
        copy = drops.folders.root / "whole"
        copy.write_text("".join(written), "utf-8")
        drops.expect(copy)


def test_slowly_written_files_are_taken_once_complete(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F01: held open, renamed into place, or appended to: each file is taken once and complete."""
    experiment.begin("F01 slow", f"writers that take {WRITING_SECONDS:.0f} stability delays")
    drops = cluster.open_inbox()
    cluster.start_watching()
    inbox, elsewhere = drops.folders.inbox, drops.folders.root / "elsewhere.txt"
    texts = [parts(cluster, number) for number in range(4)]
    expect(drops, *texts)

    def renamed(path: Path, target: str, written: list[str]) -> None:
        write_reopened(path, written, WRITING_SECONDS / _PARTS)
        path.rename(inbox / target)

    at_once(
        lambda: write_held_open(inbox / "held.txt", texts[0], WRITING_SECONDS / _PARTS),
        lambda: renamed(elsewhere, "renamed.txt", texts[1]),
        lambda: renamed(inbox / "hidden.txt.part", "hidden.txt", texts[2]),
        lambda: write_reopened(inbox / "grows.txt", texts[3], STABILITY_SECONDS / 2),
    )
    experiment.fault_is_over()

    drops.wait_until_delivered(4, 60, cluster.story)
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"stability delay {STABILITY_SECONDS:g} s",
    )
    names = ["grows.txt", "held.txt", "hidden.txt", "renamed.txt"]
    assert drops.outcomes() == dict.fromkeys(names, "done")


def test_a_closed_file_is_taken_after_the_stability_delay(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F01: a file closed for longer than the delay is taken; with later content it is another."""
    experiment.begin("F01 pause", f"writers that pause for {PAUSE_SECONDS:.0f} stability delays")
    drops = cluster.open_inbox()
    cluster.start_watching()
    cluster.provider.treat(HOLD, times=10)
    inbox = drops.folders.inbox
    held, closed = parts(cluster, 1), parts(cluster, 2)
    halves = ["".join(closed[:4]), "".join(closed[4:])]
    expect(drops, held, closed)

    at_once(
        lambda: write_held_open(
            inbox / "held.txt", ["".join(held[:4]), "".join(held[4:])], PAUSE_SECONDS
        ),
        lambda: write_reopened(inbox / "closed.txt", halves, PAUSE_SECONDS),
    )
    cluster.wait_for("SELECT count(*) = 3 FROM inbox_files")
    cluster.provider.forgive()
    experiment.fault_is_over()

    drops.wait_until_delivered(3, 60, cluster.story)
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="held open: accepted once, complete; closed: the half, and then the whole",
    )
    assert len(drops.notes("held.txt")) == 1
    assert {str(note["reason"]) for note in drops.notes("closed.txt")} == {"None", "changed"}
    names = {path.name for path in drops.folders.done.iterdir()}
    assert {"closed.txt.json", "closed (2).txt", "closed (2).txt.json"} <= names


def test_a_new_watch_takes_no_growing_file(cluster: Cluster, experiment: Experiment) -> None:
    """F01: a watch that starts or is restarted takes no file that still grows."""
    experiment.begin("F01 mid write", "a watch started during a write, killed, and restarted")
    drops = cluster.open_inbox()
    inbox = drops.folders.inbox
    held, grows = parts(cluster, 1), parts(cluster, 2) * 4
    expect(drops, held, grows)

    def watch_twice() -> None:
        cluster.start_watching().kill()
        cluster.start_watching()

    at_once(
        lambda: write_held_open(inbox / "held.txt", held, 2 * STABILITY_SECONDS),
        lambda: write_reopened(inbox / "grows.txt", grows, STABILITY_SECONDS / 2),
        watch_twice,
    )
    experiment.fault_is_over()

    drops.wait_until_delivered(2, 60, cluster.story)
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    assert drops.outcomes() == {"held.txt": "done", "grows.txt": "done"}
