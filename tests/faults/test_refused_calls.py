"""L08: questions that the provider refuses for good, and smaller ones that it does not."""

from __future__ import annotations

import json

import pytest

from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import calls, ends, saying, write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.provider import Treatment
from tests.peers.answering_server import AnsweringHandler, completion, summary

MALFORMED = {"malformed": strange.refuses(400, "invalid_value", "Unknown parameter.")}
_TOO_LONG = "This model's maximum context length is 100 tokens."
_LONGEST_PROMPT = 1_250


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


@pytest.mark.thorough
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
