"""I1, I6 and I8 of the oracle for dropped files: delivered once, unchanged, and explained."""

from __future__ import annotations

from collections.abc import Iterator

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster

_UNDELIVERED = "SELECT name, status FROM inbox_files WHERE status NOT IN ('done', 'failed')"
_MAX_NAMED = 5


def end_states(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I1: every claimed file was delivered."""
    if cluster.drops is None:
        return
    for name, status in cluster.rows(_UNDELIVERED)[:_MAX_NAMED]:
        yield f"{name} was claimed and is {status}"


def each_in_one_place(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I6: every dropped content is in one place, as often as it was dropped, and no other is."""
    if cluster.drops is None:
        return
    delivered, dropped = cluster.drops.counts(), cluster.drops.contents
    if lost := (dropped - delivered).total():
        yield f"{lost} files that were dropped are nowhere"
    if others := (delivered - dropped).total():
        yield f"{others} files were duplicated or changed"
    folders = cluster.drops.folders
    for place in (folders.inbox, folders.done, folders.failed):
        for hidden in place.rglob(".chordwise-*"):
            yield f"{hidden.name} was left in {place.name}"


def explained(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I8: each note is where it says; a note of a failure has a reason, a message and a hint."""
    if cluster.drops is None:
        return
    for note in cluster.drops.notes():
        if note["outcome"] == "failed" and not any(map(_explains, _told(note))):
            yield f"the note of {note['file']} does not explain its failure"
    count = cluster.count("SELECT count(*) FROM inbox_files")
    if count != cluster.drops.delivered_count():
        yield f"{count} files were taken, and there are {cluster.drops.delivered_count()} notes"


def _told(note: JsonObject) -> Iterator[JsonObject]:
    yield note
    for intake in json_values.objects(note["intakes"]):
        yield intake
        yield from json_values.objects(intake["jobs"])


def _explains(told: JsonObject) -> bool:
    return all(told.get(part) for part in ("message", "hint"))
