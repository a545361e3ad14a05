"""L06, L07 and L09: answers that are complete HTTP responses, but wrong."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest

from chordwise.domain.json_values import JsonObject
from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import add_model, calls, ends, saying, write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment


def with_member(summary: str, name: str, value: object) -> str:
    """Return the answer with one member that violates the schema."""
    changed: dict[str, object] = {**json.loads(summary), name: value}
    return json.dumps(changed)


TAKEN_AS_IT_IS = {
    "fence": strange.rewrites(lambda answer: f"```json\n{answer}\n```"),
    "prose before": strange.rewrites(lambda answer: f"Here is the summary: {answer}"),
}
WRONG = {
    "schema": strange.says('{"summary": "Not what was asked for."}'),
    "not a number": strange.rewrites(lambda a: with_member(a, "confidence", float("nan"))),
    "enum": strange.rewrites(lambda a: with_member(a, "confidence", "very high")),
    "prose after": strange.rewrites(lambda a: f"{a}\n\nI hope that this helps."),
    "empty": strange.says(""),
    "nothing": strange.says(None),
}
CUT_OFF = {
    "cut off": strange.rewrites(lambda answer: answer[:100], "length"),
    # Although the finish reason is `length`, the answer is complete.
    "cut off but whole": strange.rewrites(str, "length"),
}
REQUESTS_OF_THE_PLAIN_PROMPT = 2
REFUSED = {
    "refusal": strange.says(None, refusal="I cannot help with that."),
    "filter": strange.rewrites(str, "content_filter"),
}


@pytest.mark.thorough
def test_invalid_answers_are_repaired(cluster: Cluster, experiment: Experiment) -> None:
    """L07: a code fence costs nothing, an error one more request; truncated answers are unused."""
    experiment.begin("L07 once", "fence, prose, wrong schema, NaN, enum, empty, truncated")
    cluster.start_both()

    cluster.submit(*write_cases(cluster, TAKEN_AS_IT_IS | WRONG | CUT_OFF))

    # The same question is repeated with a higher output limit.
    experiment.finish(Allowance(extra_calls=len(CUT_OFF)))
    assert calls(cluster) == {
        **dict.fromkeys(TAKEN_AS_IT_IS, ("valid",)),
        **dict.fromkeys({**WRONG, **CUT_OFF}, ("invalid", "valid")),
    }


@pytest.mark.thorough
def test_permanently_invalid_answers_fail_the_chunk(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L07: the chunk fails after one repair with each prompt; a refusal is not repeated."""
    experiment.begin("L07 always", "the same with every request, and refusals")
    cluster.start_both()

    cluster.submit(*write_cases(cluster, WRONG | CUT_OFF | REFUSED, times=99))

    # The plain prompt, the fallback, asks the same question in other words.
    repeated = len(CUT_OFF) + REQUESTS_OF_THE_PLAIN_PROMPT * len(WRONG)
    ends_allowed = frozenset({"succeeded", "failed"})
    experiment.finish(Allowance(extra_calls=repeated, ends=ends_allowed))
    assert calls(cluster) == {
        **dict.fromkeys(WRONG, ("invalid",) * (2 + REQUESTS_OF_THE_PLAIN_PROMPT)),
        **dict.fromkeys(CUT_OFF, ("invalid", "invalid")),
        **dict.fromkeys(REFUSED, ("invalid",)),
    }
    assert {name: end[1] for name, end in ends(cluster).items()} == {
        **dict.fromkeys(WRONG, "invalid_answer"),
        **dict.fromkeys(CUT_OFF, "truncated"),
        **dict.fromkeys(REFUSED, "refused"),
    }


BELIEVABLE: JsonObject = {"prompt_tokens": 100, "completion_tokens": 50}
USAGES = {
    "usage missing": strange.counts(None),
    "usage of other types": strange.counts({"prompt_tokens": "many", "completion_tokens": []}),
    "usage negative": strange.counts({**BELIEVABLE, "prompt_tokens": -100}),
    "usage absurd": strange.counts({**BELIEVABLE, "prompt_tokens": 10**12}),
    "usage beyond every column": strange.counts({**BELIEVABLE, "completion_tokens": 10**30}),
}
_COSTS = """
SELECT count(*) FILTER (WHERE cost_usd IS NULL), count(*) FROM model_calls WHERE model = 'priced'"""


@pytest.mark.thorough
def test_invalid_usage_has_an_unknown_cost(cluster: Cluster, experiment: Experiment) -> None:
    """L09: missing or impossible usage has an unknown cost, and delays nothing."""
    experiment.begin("L09 usage", "usage missing, of other types, negative, 1e12, 1e30")
    more = "input_usd_per_million_tokens = 1\noutput_usd_per_million_tokens = 5"
    add_model(cluster, "priced", more=more)
    cluster.start_both()

    cluster.submit(*write_cases(cluster, USAGES), options=("--model", "priced"))

    experiment.finish()
    assert calls(cluster) == dict.fromkeys(USAGES, ("valid",))
    assert cluster.rows(_COSTS) == [(len(USAGES), len(USAGES))]


_NOTICED = """
SELECT count(*) FROM model_calls
WHERE error_code = 'model_transport' AND error_message LIKE '%the answer to another request%'"""


@pytest.mark.thorough
def test_answers_with_swapped_ids_are_discarded(cluster: Cluster, experiment: Experiment) -> None:
    """L09: an answer with the id of another request is never stored; the call is repeated."""
    experiment.begin("L09 swapped", "4 answers swapped in pairs, with their ids", chunks=36)
    mixer = strange.Mixer(echoes=True)
    cluster.provider.treat(mixer.treatment(), times=4)
    cluster.start_both()

    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(36)))

    cluster.wait_until_finished(90)
    experiment.finish(Allowance(extra_calls=mixer.mixed_up), notes=f"{mixer.mixed_up} detected")
    assert mixer.mixed_up >= 2
    assert cluster.count(_NOTICED) == mixer.mixed_up
    assert cluster.count("SELECT count(*) FROM facts WHERE NOT grounded") == 0


_MARKED = """
SELECT count(*) FILTER (WHERE NOT f.grounded AND r.quality = 0), count(*)
FROM facts AS f JOIN results AS r ON r.job_id = f.job_id
JOIN jobs AS j ON j.id = f.job_id JOIN documents AS d ON d.id = j.document_id
WHERE strpos(d.text, f.quote) = 0"""


@pytest.mark.thorough
def test_swapped_answers_without_ids_are_ungrounded(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L09: without ids, the facts are ungrounded, because their quotes are from another text."""
    experiment.begin(
        "L09 swapped without ids", "4 answers swapped in pairs, without ids", chunks=36
    )
    mixer = strange.Mixer(echoes=False)
    cluster.provider.treat(mixer.treatment(), times=4)
    cluster.start_both()

    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(36)))

    cluster.wait_until_finished(90)
    experiment.finish(
        Allowance(ungrounded=mixer.mixed_up),
        notes=f"{mixer.mixed_up} swapped, all of them ungrounded",
    )
    assert mixer.mixed_up >= 2
    assert cluster.rows(_MARKED) == [(mixer.mixed_up, mixer.mixed_up)]


@pytest.mark.thorough
def test_duplicate_answers_are_discarded(cluster: Cluster, experiment: Experiment) -> None:
    """L09: a duplicate answer is never used for the next request on the connection."""
    experiment.begin("L09 twice", "each of the first ten answers sent twice", chunks=36)
    cluster.start_both()
    cluster.provider.treat(strange.answers_twice(), times=10)

    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(36)))

    experiment.finish(Allowance(extra_calls=10))
    early = cluster.count(
        "SELECT count(*) FROM model_calls WHERE error_message LIKE '%before the request%'"
    )
    assert early > 0, "no connection was used again"


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
def test_bodies_that_are_not_answers_are_detected(cluster: Cluster, experiment: Experiment) -> None:
    """L06: each is detected, none is held in memory, and the next request is valid."""
    experiment.begin("L06 once", "200 with an error object, no body, 200 MB, gzip bombs, a BOM")
    cluster.start_both()

    cluster.submit(*write_cases(cluster, NO_ANSWERS | UNUSUAL_ANSWERS))

    experiment.finish(Allowance(extra_calls=len(NO_ANSWERS)))
    assert calls(cluster) == {
        **{name: (code, "valid") for name, code in CODES.items()},
        **dict.fromkeys(UNUSUAL_ANSWERS, ("valid",)),
    }


@pytest.mark.thorough
def test_permanent_bodies_that_are_not_answers_fail_the_documents(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L06: after the usual retries the documents fail, with a reason and a hint."""
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
def test_a_login_page_pauses_the_run(cluster: Cluster, experiment: Experiment) -> None:
    """L06: the run pauses after a request for each slot, names the page, and can continue."""
    experiment.begin("L06 login page", "200 with a web page, until the address is corrected")
    cluster.start_both()
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
    assert cluster.run("continue", "--no-wait", run_id).returncode == 0
    experiment.finish(Allowance(extra_calls=refused), notes=f"{refused} requests refused")
