"""L06: bodies with status 200 that are no answers, and such as only look so."""

from __future__ import annotations

import codecs
import gzip

import pytest

from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import add_model, calls, ends, saying, write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment

GATEWAY_ERROR = strange.sends(b'{"error": {"message": "upstream timed out", "code": 524}}')
LOGIN_PAGE = strange.sends(
    b"<!doctype html><html><head><title>Sign in to Example</title></head></html>",
    headers={"Content-Type": "text/html"},
)

NO_ANSWERS = {
    "error object": GATEWAY_ERROR,
    "empty": strange.sends(b""),
    "flood": strange.floods(),
    "bomb": strange.explodes(),
    "packed bomb": strange.explodes(2),
}
UNUSUAL_ANSWERS = {
    "byte order mark": strange.wraps(lambda answer: codecs.BOM_UTF8 + answer),
    "web page by name": strange.wraps(lambda a: a, headers={"Content-Type": "text/html"}),
    "packed": strange.wraps(gzip.compress, headers={"Content-Encoding": "gzip"}),
}
CODES = {
    "error object": "model_overloaded",
    "empty": "model_transport",
    "flood": "model_transport",
    "bomb": "model_transport",
    "packed bomb": "model_transport",
}


@pytest.mark.thorough
def test_bodies_that_are_no_answers(cluster: Cluster, experiment: Experiment) -> None:
    """L06: each is told from an answer, none is held in memory, and the next request counts."""
    experiment.begin("L06 once", "200 with an error object, nothing, 200 MB, gzip bombs, a BOM")
    cluster.start_scheduler()
    cluster.start_worker()

    cluster.submit(*write_cases(cluster, NO_ANSWERS | UNUSUAL_ANSWERS))

    experiment.finish(Allowance(extra_calls=len(NO_ANSWERS)))
    assert calls(cluster) == {
        **{name: (code, "valid") for name, code in CODES.items()},
        **dict.fromkeys(UNUSUAL_ANSWERS, ("valid",)),
    }


@pytest.mark.thorough
def test_bodies_that_stay_no_answers(cluster: Cluster, experiment: Experiment) -> None:
    """L06: after the usual patience the documents fail, with the reason and a hint."""
    experiment.begin("L06 always", "the same with every request, one postponement allowed")
    names = {name: name.replace(" ", "-") for name in NO_ANSWERS}
    for name in names.values():
        add_model(cluster, name)
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_PIPELINE__MAX_POSTPONEMENTS="1")

    for path, name in zip(write_cases(cluster, NO_ANSWERS, times=99), names.values(), strict=True):
        cluster.submit(path, options=("--model", name))

    allowance = Allowance(extra_calls=5 * len(NO_ANSWERS), ends=frozenset({"succeeded", "failed"}))
    experiment.finish(allowance, bound_seconds=30)
    assert calls(cluster) == {name: (code,) * 6 for name, code in CODES.items()}
    assert {name: end[1] for name, end in ends(cluster).items()} == CODES


@pytest.mark.thorough
def test_a_login_page(cluster: Cluster, experiment: Experiment) -> None:
    """L06: the run pauses after a request for each slot, names the page, and can go on."""
    experiment.begin("L06 login page", "200 with a web page, until the address is mended")
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.provider.treat(LOGIN_PAGE, times=999)

    run_id = cluster.submit(cluster.documents.write(chunks=24, saying=saying("page")))

    cluster.wait_for("SELECT status = 'paused' FROM runs")
    (status, code, what, hint) = ends(cluster)["page"]
    assert (status, code) == ("paused", "model_access")
    assert "Sign in to Example" in what
    assert "login page" in hint
    refused = len(cluster.provider.requests)
    cluster.provider.forgive()
    experiment.fault_is_over()
    assert cluster.run("retry", "--no-wait", run_id).returncode == 0
    experiment.finish(Allowance(extra_calls=refused), notes=f"{refused} requests refused")
