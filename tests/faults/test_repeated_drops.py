"""F02 and F03: what is dropped again, and what happens to a name after its file was taken."""

from __future__ import annotations

import pytest

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS
from tests.faults.experiment import Experiment
from tests.faults.provider import HOLD

pytestmark = pytest.mark.thorough


def tells_of_another(note: JsonObject) -> bool:
    """Whether a note says that its content had been analyzed before."""
    (intake,) = json_values.objects(note["intakes"])
    jobs = json_values.objects(intake["jobs"])
    return bool(intake["same_as_intake"]) or any(job["reused_from"] for job in jobs)


def test_the_same_again(cluster: Cluster, experiment: Experiment) -> None:
    """F02: one analysis for one content, however often and under whatever name it comes."""
    experiment.begin("F02", "a file twice, its content under two names, new content under one")
    drops = cluster.open_inbox()
    cluster.start_watching()
    text, later = cluster.documents.text(1), cluster.documents.text(2)

    drops.drop("one.txt", text)
    drops.drop("two.txt", text)
    drops.wait_until_delivered(2, 60, cluster.story)
    drops.drop("one.txt", text)
    drops.wait_until_delivered(3, 60, cluster.story)
    asked = len(cluster.provider.requests)
    experiment.fault_is_over()
    drops.drop("one.txt", later)
    drops.wait_until_delivered(4, 60, cluster.story)

    told = sorted(map(tells_of_another, drops.notes()))
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"{asked} call for three files of one content",
    )
    assert asked == 1
    assert told == [False, False, True, True]
    assert {f"one{number}.txt" for number in ("", " (2)", " (3)")} < {
        each.name for each in drops.folders.done.iterdir()
    }


def test_a_name_whose_file_was_taken(cluster: Cluster, experiment: Experiment) -> None:
    """F03: deleting, replacing or truncating what was dropped does not reach what was taken."""
    experiment.begin("F03", "names deleted, replaced, truncated while their files are analyzed")
    drops = cluster.open_inbox()
    cluster.start_watching()
    cluster.provider.treat(HOLD, times=10)
    names = ("deleted.txt", "replaced.txt", "truncated.txt")
    taken = [drops.drop(name, cluster.documents.text(at)) for at, name in enumerate(names)]
    drops.folders.inbox.joinpath("withdrawn.txt").write_text("A short life.", "utf-8")
    drops.folders.inbox.joinpath("withdrawn.txt").unlink()
    cluster.wait_for("SELECT count(*) = 3 FROM inbox_files WHERE status = 'submitted'")

    with pytest.raises(FileNotFoundError):
        taken[0].unlink()
    drops.drop("replaced.txt", cluster.documents.text(10))
    drops.drop("truncated.txt", "")
    cluster.wait_for("SELECT count(*) = 5 FROM inbox_files WHERE status <> 'taking'")
    cluster.provider.forgive()
    experiment.fault_is_over()

    drops.wait_until_delivered(5, 60, cluster.story)
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    assert [len(drops.notes(name)) for name in names] == [1, 2, 2]
    assert {each.name for each in drops.folders.failed.glob("*.txt")} == {"truncated.txt"}
    assert drops.notes("withdrawn.txt") == []
