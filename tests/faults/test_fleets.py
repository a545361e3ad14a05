"""L01: four real workers share a limit that they were not told."""

from __future__ import annotations

import json
import time

import pytest

from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.peers.admission import Admission
from tests.peers.answering_server import AnsweringHandler, completion, summary
from tests.peers.limiting_server import SLOW_DOWN

WORKERS = 4
DOCUMENTS = 36
CHUNKS_EACH = 20
PER_SECOND = 8.0
BURST = 16.0
DELAY_SECONDS = 0.2
# From the first answer on; refusals begin when the burst is used up, and find the limit.
WARM_UP_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0


def limited(admission: Admission, *, says_when: bool) -> Treatment:
    """Answer what is admitted, and refuse everything else, with a `Retry-After` or without."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        wait = admission.wait_for_room()
        if wait > 0:
            handler.reply(429, SLOW_DOWN, {"Retry-After": f"{wait:.3f}"} if says_when else {})
            return
        time.sleep(DELAY_SECONDS)  # noqa: TID251 - the slowness is the point
        handler.reply(200, json.dumps(completion(summary(user))).encode())

    return Treatment(answering=answer)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("says_when", [True, False])
def test_a_limit_that_four_workers_find_out(
    cluster: Cluster, experiment: Experiment, *, says_when: bool
) -> None:
    """L01: at least 90 % of the allowed rate, under 2 % refused after warm-up, nothing failed."""
    chunks = DOCUMENTS * CHUNKS_EACH
    experiment.begin(
        f"L01 fleet {'told when' if says_when else 'untold'}",
        f"{WORKERS} workers, {PER_SECOND:g} calls a second allowed; 429 "
        f"{'with' if says_when else 'without'} Retry-After",
    )
    admission = Admission.of(PER_SECOND, BURST)
    cluster.provider.treat(limited(admission, says_when=says_when), times=100 * chunks)
    cluster.start_scheduler()
    cluster.submit(*(cluster.documents.write(chunks=CHUNKS_EACH) for _ in range(DOCUMENTS)))
    for _ in range(WORKERS):
        cluster.start_worker()

    # The last tenth may not have enough open chunks for all slots.
    cluster.wait_for_share(0.9, _PATIENCE_SECONDS)
    end = time.monotonic()
    cluster.wait_until_finished(_PATIENCE_SECONDS)
    experiment.fault_is_over()
    start = admission.answered_at[0] + WARM_UP_SECONDS

    rate, share = admission.rate(start, end), admission.refused_share(start, end)
    experiment.finish(
        Allowance(extra_calls=len(admission.refused_at)),
        notes=f"{rate / PER_SECOND:.1%} of the rate, {share:.2%} refused in {end - start:.0f} s"
        f" after {WARM_UP_SECONDS:g} s of warm-up",
    )
    assert rate >= 0.9 * PER_SECOND
    assert share < 0.02
    assert cluster.count("SELECT count(*) FROM chunks WHERE status <> 'succeeded'") == 0
