"""F05: bombs, loops and traps are dropped beside honest documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import psutil
import pytest

from tests.faults import hostile_files
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS
from tests.faults.experiment import Experiment
from tests.faults.members import Member

pytestmark = pytest.mark.thorough

PAGES = 1_000_000
HONEST = 11
PROMISED_SECONDS = 30.0
MEMORY_MEGABYTES = 1_024
_READERS = """
[readers]
timeout_seconds = 20
memory_megabytes = 256
max_unpacked_megabytes = 200
"""
# What is repaired into an empty document is as good as what is refused.
HOSTILE: Mapping[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "bomb.docx": (hostile_files.zip_bomb, ("zip_bomb",)),
    "laughs.docx": (hostile_files.billion_laughs, ("malformed",)),
    "entity.docx": (hostile_files.external_entity, ("malformed",)),
    "deep.zip": (lambda: hostile_files.nested_archives(10), ("nested_too_deep",)),
    "many.zip": (lambda: hostile_files.multiplying_archives(10), ("unpacked_size", "binary")),
    "pages.pdf": (
        lambda: hostile_files.pdf_of_pages(PAGES),
        ("parser_crashed", "timeout", "memory"),
    ),
    "flate.pdf": (
        lambda: hostile_files.flate_bomb(1_000),
        ("parser_crashed", "timeout", "memory", "empty", "malformed"),
    ),
    "encrypted.pdf": (hostile_files.encrypted, ("encrypted",)),
    "xref.pdf": (hostile_files.cross_reference_loop, ("empty", "malformed")),
    "tree.pdf": (hostile_files.page_tree_loop, ("empty", "malformed")),
}
_LONGEST = "SELECT max(extract(epoch FROM submitted_at - created_at))::float FROM inbox_files"


def readers_of(scheduler: Member) -> set[int]:
    """Return the process ids of the readers that a scheduler has now."""
    children = psutil.Process(scheduler.process.pid).children(recursive=True)
    return {each.pid for each in children if "chordwise.readers.child" in each.cmdline()}


def test_hostile_files_beside_honest_ones(cluster: Cluster, experiment: Experiment) -> None:
    """F05: each has its code within its limits, its reader is gone, and other files are read."""
    experiment.begin("F05", f"bombs, laughs, entities, loops, a PDF of {PAGES:,} pages")
    drops = cluster.open_inbox(more=_READERS)
    scheduler = cluster.start_watching()
    drops.drop("first.txt", cluster.documents.text(1))
    drops.wait_until_delivered(1, 60, cluster.story)
    readers = readers_of(scheduler)

    for number, (name, (make, _)) in enumerate(HOSTILE.items(), start=2):
        drops.drop(name, make())
        drops.drop(f"honest-{number}.txt", cluster.documents.text(number))
    experiment.fault_is_over()

    drops.wait_until_delivered(len(HOSTILE) + HONEST, 240, cluster.story)
    longest, peak = cluster.value(_LONGEST), scheduler.peak_bytes // 1_048_576
    assert isinstance(longest, float)
    experiment.finish(
        Allowance(memory_megabytes=MEMORY_MEGABYTES),
        bound_seconds=WAITING_SECONDS + len(HOSTILE) * PROMISED_SECONDS,
        notes=f"longest {longest:.1f} s of 30, scheduler with readers at most {peak} MB",
    )
    found = drops.outcomes()
    assert {name: found[name] for name in HOSTILE if found[name] not in HOSTILE[name][1]} == {}
    assert [name for name, outcome in found.items() if outcome == "done"] != []
    assert sum(outcome == "done" for outcome in found.values()) == HONEST
    assert longest < PROMISED_SECONDS
    assert readers.isdisjoint(readers_of(scheduler))
    assert cluster.count("SELECT count(*) FROM documents WHERE text LIKE '%root:%'") == 0
