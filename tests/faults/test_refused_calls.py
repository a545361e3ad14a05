"""L08: calls that the provider refuses for good: one pause for all, or smaller questions."""

from __future__ import annotations

import json

import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import calls, ends, saying, write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.peers.answering_server import AnsweringHandler, completion, summary

REFUSALS = {
    "401": strange.refuses(401, "invalid_api_key", "Incorrect API key provided."),
    "403": strange.refuses(403, "forbidden", "The key may not do this."),
    "404": strange.refuses(404, "model_not_found", "The model peer does not exist."),
}
DOCUMENTS = 4
CHUNKS = 24
MALFORMED = {"malformed": strange.refuses(400, "invalid_value", "Unknown parameter.")}
_TOO_LONG = "This model's maximum context length is 100 tokens."
_LONGEST_PROMPT = 1_250


@pytest.mark.thorough
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refused_key(cluster: Cluster, experiment: Experiment, status: str) -> None:
    """L08: each slot asks once at most, all jobs pause with the hint, and then all go on."""
    chunks = DOCUMENTS * CHUNKS
    experiment.begin(f"L08 {status}", f"{status} for {chunks} chunks, then no more", chunks=chunks)
    cluster.provider.treat(REFUSALS[status], times=9_999)
    cluster.start_scheduler()
    run_id = cluster.submit(*(cluster.documents.write(chunks=CHUNKS) for _ in range(DOCUMENTS)))
    cluster.start_worker()

    cluster.wait_for("SELECT status = 'paused' FROM runs")
    assert cluster.rows("SELECT DISTINCT status, error_code FROM jobs") == [
        ("paused", "model_access")
    ]
    assert cluster.count("SELECT count(*) FROM chunks WHERE status = 'failed'") == 0
    refused = len(cluster.provider.requests)
    assert refused <= CONCURRENCY
    cluster.provider.forgive()
    experiment.fault_is_over()
    assert cluster.run("retry", "--no-wait", run_id).returncode == 0

    experiment.finish(Allowance(extra_calls=refused), notes=f"{refused} requests refused")


@pytest.mark.thorough
def test_a_request_that_is_rejected(cluster: Cluster, experiment: Experiment) -> None:
    """L08: what is rejected for good is asked once, and its neighbours do not mind."""
    experiment.begin("L08 400", "400 for one of four documents")
    cluster.start_scheduler()
    cluster.start_worker()

    rejected = write_cases(cluster, MALFORMED, times=99)
    cluster.submit(*rejected, *(cluster.documents.write(chunks=2) for _ in range(3)))

    experiment.finish(Allowance(ends=frozenset({"succeeded", "failed"})))
    assert calls(cluster) == {"malformed": ("model_request",)}
    assert ends(cluster)["malformed"][:2] == ("failed", "model_request")


def test_a_context_that_is_too_short(cluster: Cluster, experiment: Experiment) -> None:
    """L08: a chunk that is too long is asked about in halves, and its answer covers both."""
    experiment.begin("L08 too long", f"400 for prompts above {_LONGEST_PROMPT:,} characters")
    cluster.provider.treat(short_of_context(), times=9_999, containing="Case long")
    cluster.start_scheduler()
    cluster.start_worker()

    cluster.submit(cluster.documents.write(chunks=2, saying=saying("long")))

    experiment.finish()
    found = calls(cluster)["long"]
    assert found.count("context_too_long") >= 1
    assert found.count("valid") >= 2
    assert cluster.rows("SELECT coverage FROM results ORDER BY created_at LIMIT 1") == [(1.0,)]


def short_of_context() -> Treatment:
    """Refuse what is too long, and answer what is not."""
    error = {"error": {"message": _TOO_LONG, "code": "context_length_exceeded"}}

    def answer(handler: AnsweringHandler, user: str) -> None:
        if len(user) > _LONGEST_PROMPT:
            handler.reply(400, json.dumps(error).encode())
        else:
            handler.reply(200, json.dumps(completion(summary(user))).encode())

    return Treatment(answering=answer)
