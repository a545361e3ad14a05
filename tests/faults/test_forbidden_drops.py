"""F08: files and folders that the scheduler must not touch, until somebody mends them."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.members import Member

pytestmark = pytest.mark.thorough

LOOKS = 16
_NOBODY = 65_534
_POLLING_SECONDS = 0.5
_LOOKS = f"polling_seconds = {_POLLING_SECONDS}"
# The pause after as many failures as fit into the looks.
_PAUSE_SECONDS = 16.0
# Without these, permissions bind root as they bind everybody.
_RIGHTS = "-dac_override,-dac_read_search,-fowner"


def without_rights() -> tuple[str, ...]:
    """Return what starts a process that permissions bind; skip where we cannot."""
    if os.geteuid() != 0:
        return ()
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("root needs setpriv to start a process that permissions bind")
    return program, "--bounding-set", _RIGHTS


def reported(scheduler: Member) -> Counter[str]:
    """Return how often each thing was reported as refused, or put off."""
    lines = scheduler.text().splitlines()
    told = [line for line in lines if '"inbox.refused"' in line or '"inbox.put_off"' in line]
    return Counter(Path(line.split('"file": "')[1].split('"')[0]).name for line in told)


def forbid(drops: Drops) -> dict[Path, int]:
    """Take rights away; return which rights have to be given back to which paths."""
    inbox, done = drops.folders.inbox, drops.folders.done
    done.mkdir()
    closed = {inbox / "secret.txt": 0, inbox / "closed": 0, inbox / "fixed": 0o555, done: 0o555}
    before = {path: path.stat().st_mode for path in closed}
    for path, mode in closed.items():
        path.chmod(mode)
    return before


def test_what_the_scheduler_may_not_touch(cluster: Cluster, experiment: Experiment) -> None:
    """F08: each is reported once however often it is looked at, and goes on once it is mended."""
    experiment.begin("F08", "chmod 000; folders not listed, not writable; done/ not writable")
    cluster.members.prefix = without_rights()
    drops = cluster.open_inbox(_LOOKS)
    names = ("secret.txt", "closed/inner.txt", "fixed/stays.txt", "plain.txt", "other.txt")
    paths = [drops.drop(name, cluster.documents.text(at)) for at, name in enumerate(names)]
    rights = forbid(drops)
    if os.geteuid() == 0:
        os.chown(paths[-1], _NOBODY, _NOBODY)  # a file of somebody else's, which we may read

    scheduler = cluster.start_watching()
    cluster.wait_for("SELECT count(*) = 2 FROM results")
    wait_until(lambda: len(reported(scheduler)) == len(names), 60, "all is reported")
    time.sleep(LOOKS * _POLLING_SECONDS)  # noqa: TID251 - so often nothing may be told again
    told, taken = reported(scheduler), cluster.count("SELECT count(*) FROM inbox_files")
    for path, mode in rights.items():
        path.chmod(mode)
    experiment.fault_is_over()

    drops.wait_until_delivered(len(names), 90, cluster.story)
    experiment.finish(
        bound_seconds=_PAUSE_SECONDS + WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"each reported once in {LOOKS} looks",
    )
    assert set(told.values()) == {1}, told
    assert {"secret.txt", "closed", "stays.txt"} < set(told)
    assert taken == 2
    assert set(drops.outcomes().values()) == {"done"}
