"""L01 and L08: a provider that rejects calls temporarily, and rejected keys and requests."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest
from llmock.pytest_plugin import LLMock

from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import calls, ends, saying, write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.peer import ask_the_peer, invariants_beside
from tests.faults.provider import Treatment
from tests.faults.test_broker import wait
from tests.peers.admission import SLOW_DOWN, Admission
from tests.peers.answering_server import AnsweringHandler, completion, summary

CHUNKS = 36
# The storm accepts one of twenty requests.
REFUSED = 19
# `MAX_PAUSE_SECONDS` of permits.py, after which the provider is called again in any case.
CAP_SECONDS = 300.0
_GOOD = Treatment()
_BY_THE_PEER = 6
_REFUSALS = "SELECT count(*) FROM model_calls WHERE error_code = 'rate_limited'"
_FORMS = ("0", "-1", "soon", "1e999")


def refusal(retry_after: str) -> Treatment:
    return Treatment(status=429, headers={"Retry-After": retry_after})


def start(cluster: Cluster, chunks: int) -> None:
    """Start a scheduler, a worker and a document."""
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=chunks))


def begin_storm(cluster: Cluster, retry_after: float, seconds: float) -> None:
    """Reject 95 % of the requests from now on, including the first one."""
    for _ in range(int(seconds)):
        cluster.provider.treat(refusal(f"{retry_after:g}"), times=REFUSED)
        cluster.provider.treat(_GOOD)


def end_storm(cluster: Cluster, seconds: float) -> int:
    """End the storm this long after its first request; return the number of requests in it."""
    wait_until(lambda: bool(cluster.provider.requests), 60, "the storm begins")
    wait(seconds)
    cluster.provider.forgive()
    return len(cluster.provider.requests)


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("seconds", "retry_after", "chunks", "pace_seconds"), [(10, 2, CHUNKS, 60), (300, 20, 120, 300)]
)
def test_the_rate_recovers_after_a_storm_of_rejections(
    cluster: Cluster,
    experiment: Experiment,
    seconds: float,
    retry_after: float,
    chunks: int,
    pace_seconds: float,
) -> None:
    """L01: no worker exceeds the allowed rate, nothing fails, and the rate recovers.

    The rate learned in the storm is far too low, and doubles every ten seconds afterwards.
    """
    experiment.begin(
        f"L01 storm {seconds:g} s",
        f"95 % of the requests refused, Retry-After {retry_after:g} s",
        chunks=chunks,
    )
    begin_storm(cluster, retry_after, seconds)
    start(cluster, chunks)

    requests = end_storm(cluster, seconds)
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=chunks // 2),
        notes=f"{requests} requests during the fault",
        timeout_seconds=2 * pace_seconds + 60,
        bound_seconds=pace_seconds + experiment.undisturbed_seconds,
    )
    assert requests <= 1.2 * seconds / retry_after + CONCURRENCY
    assert len(cluster.provider.requests) < 1.5 * chunks


@pytest.mark.thorough
def test_every_form_of_retry_after_is_handled(cluster: Cluster, experiment: Experiment) -> None:
    """L01: a date is respected; invalid values are replaced by the default wait."""
    experiment.begin("L01 forms", "Retry-After as a date, 0, -1 and nonsense")
    date = formatdate(time.time() + 20, usegmt=True)
    for form in (*_FORMS, date):
        cluster.provider.treat(refusal(form), times=2)
        cluster.provider.treat(_GOOD, times=2)

    start(cluster, 24)

    refused = 2 * (len(_FORMS) + 1)
    experiment.finish(
        Allowance(extra_calls=refused), bound_seconds=60 + experiment.undisturbed_seconds
    )
    assert cluster.count(_REFUSALS) == refused


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
def test_a_long_retry_after_is_capped(cluster: Cluster, experiment: Experiment) -> None:
    """L01: no Retry-After delays calls for more than five minutes."""
    experiment.begin("L01 99999", "one 429 with Retry-After 99999")
    cluster.provider.treat(refusal("99999"))

    start(cluster, 24)

    experiment.finish(
        Allowance(extra_calls=1),
        timeout_seconds=2 * CAP_SECONDS,
        bound_seconds=CAP_SECONDS + experiment.undisturbed_seconds,
    )


@pytest.mark.thorough
def test_every_retry_after_of_llmock_is_respected(
    cluster: Cluster, experiment: Experiment, llmock: LLMock
) -> None:
    """L01: llmock rejects calls, then reports its limits; every Retry-After is respected."""
    experiment.begin(
        "L01 llmock", f"{_BY_THE_PEER} refusals by llmock, Retry-After 1 s, then 240 per minute"
    )
    llmock.limits(rpm=240).rate_limit(times=_BY_THE_PEER, retry_after=1)
    ask_the_peer(cluster, llmock)

    start(cluster, 12)

    experiment.finish(
        bound_seconds=60 + experiment.undisturbed_seconds, invariants=invariants_beside(llmock)
    )
    assert cluster.count(_REFUSALS) == _BY_THE_PEER


REFUSALS = {
    "401": strange.refuses(401, "invalid_api_key", "Incorrect API key provided."),
    "403": strange.refuses(403, "forbidden", "The key may not do this."),
    "404": strange.refuses(404, "model_not_found", "The model peer does not exist."),
    "429": strange.refuses(429, "insufficient_quota", "You exceeded your current quota."),
}
CODES = {"429": "quota_exceeded"}
RUNS = 4
RUN_CHUNKS = 50
WORKERS = 2
PAUSE_SECONDS = 3.0
_ALL_PAUSED = "SELECT count(*) = {} AND bool_and(status = 'paused') FROM runs"
_ALWAYS = 99_999


def submit(cluster: Cluster, runs: int, chunks: int) -> list[str]:
    return [cluster.submit(cluster.documents.write(chunks=chunks)) for _ in range(runs)]


def retry(cluster: Cluster, *run_ids: str) -> None:
    for run_id in run_ids:
        assert cluster.run("continue", "--no-wait", run_id).returncode == 0


@pytest.mark.thorough
@pytest.mark.parametrize("status", REFUSALS)
def test_a_rejected_key_pauses_all_runs_after_one_call(
    cluster: Cluster, experiment: Experiment, status: str
) -> None:
    """L08: one of 200 chunks in four runs is called before the pause, and one after each retry."""
    chunks = RUNS * RUN_CHUNKS
    experiment.begin(
        f"L08 {status}",
        f"{status} for {chunks} chunks of {RUNS} runs, then resolved",
        chunks=chunks,
    )
    cluster.provider.treat(REFUSALS[status], times=_ALWAYS)
    cluster.start_scheduler()
    run_ids = submit(cluster, RUNS, RUN_CHUNKS)
    for _ in range(WORKERS):
        cluster.start_worker()

    cluster.wait_for(_ALL_PAUSED.format(RUNS))
    said = cluster.rows("SELECT DISTINCT status, error_code, error_message, hint FROM jobs")
    assert [row[:2] for row in said] == [("paused", CODES.get(status, "model_access"))]
    assert said[0][3], "there is no hint"
    assert cluster.count("SELECT count(*) FROM chunks WHERE status = 'failed'") == 0
    refused = len(cluster.provider.requests)
    assert refused == 1
    retry(cluster, run_ids[0])
    cluster.wait_for(_ALL_PAUSED.format(RUNS))
    refused_again = len(cluster.provider.requests)
    assert refused_again == refused + 1
    cluster.provider.forgive()
    experiment.fault_is_over()
    retry(cluster, *run_ids)

    experiment.finish(
        Allowance(extra_calls=refused_again),
        notes=f"{refused} request refused, {refused_again - refused} more after a failed retry",
    )


@pytest.mark.thorough
def test_a_pause_lost_with_the_broker_costs_one_request(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L08: losing the pause costs one more request."""
    experiment.begin("L08 401 broker flushed", "401 for two runs, FLUSHALL between them")
    cluster.provider.treat(REFUSALS["401"], times=_ALWAYS)
    cluster.start_both()
    first = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(1))
    assert len(cluster.provider.requests) == 1

    cluster.broker.flush()
    second = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(2))
    assert len(cluster.provider.requests) == 2
    cluster.provider.forgive()
    experiment.fault_is_over()
    retry(cluster, *first, *second)

    experiment.finish(Allowance(extra_calls=2))


@pytest.mark.thorough
def test_a_pause_expires(cluster: Cluster, experiment: Experiment) -> None:
    """L08: after the pause a new run calls the model without intervention."""
    experiment.begin("L08 401 later", f"401, then a valid key; pause {PAUSE_SECONDS:g} s")
    cluster.provider.treat(REFUSALS["401"], times=_ALWAYS)
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_LIMITS__PAUSE_SECONDS=str(PAUSE_SECONDS))
    paused = submit(cluster, 1, 12)
    cluster.wait_for(_ALL_PAUSED.format(1))
    cluster.provider.forgive()

    wait(PAUSE_SECONDS)
    submit(cluster, 1, 12)
    cluster.wait_for("SELECT count(*) = 1 FROM runs WHERE status = 'finished'")
    experiment.fault_is_over()
    retry(cluster, *paused)

    experiment.finish(Allowance(extra_calls=1))


MALFORMED = {"malformed": strange.refuses(400, "invalid_value", "Unknown parameter.")}
_TOO_LONG = "This model's maximum context length is 100 tokens."
_LONGEST_PROMPT = 1_250


@pytest.mark.thorough
def test_a_permanently_rejected_request_is_sent_once(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L08: a permanently rejected request is sent once, and other documents are unaffected."""
    experiment.begin("L08 400", "400 for one of four documents")
    cluster.start_both()

    rejected = write_cases(cluster, MALFORMED, times=99)
    cluster.submit(*rejected, *(cluster.documents.write(chunks=2) for _ in range(3)))

    experiment.finish(Allowance(ends=frozenset({"succeeded", "failed"})))
    assert calls(cluster) == {"malformed": ("model_request",)}
    assert ends(cluster)["malformed"][:2] == ("failed", "model_request")


@pytest.mark.thorough
def test_a_chunk_that_exceeds_the_context_is_split(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L08: a chunk that is too long is split in two, and its answer covers both parts."""
    experiment.begin("L08 too long", f"400 for prompts above {_LONGEST_PROMPT:,} characters")
    cluster.provider.treat(short_of_context(), times=9_999, containing="Case long")
    cluster.start_both()

    cluster.submit(cluster.documents.write(chunks=2, saying=saying("long")))

    experiment.finish()
    results = calls(cluster)["long"]
    assert results.count("context_too_long") >= 1
    assert results.count("valid") >= 2
    assert cluster.rows("SELECT coverage FROM results ORDER BY created_at LIMIT 1") == [(1.0,)]


def short_of_context() -> Treatment:
    """Reject prompts that are too long, and answer others."""
    error = {"error": {"message": _TOO_LONG, "code": "context_length_exceeded"}}

    def answer(handler: AnsweringHandler, user: str) -> None:
        if len(user) > _LONGEST_PROMPT:
            handler.reply(400, json.dumps(error).encode())
        else:
            handler.reply(200, json.dumps(completion(summary(user))).encode())

    return Treatment(answering=answer)


FLEET = 4
DOCUMENTS = 36
CHUNKS_EACH = 20
PER_SECOND = 8.0
BURST = 16.0
DELAY_SECONDS = 0.2
# From the first answer; calls are rejected, and reveal the limit, after the burst.
WARM_UP_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0


def limited(admission: Admission, *, says_when: bool) -> Treatment:
    """Answer admitted requests, and reject all others, with or without `Retry-After`."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        wait = admission.wait_for_room()
        if wait > 0:
            handler.reply(429, SLOW_DOWN, {"Retry-After": f"{wait:.3f}"} if says_when else {})
            return
        time.sleep(DELAY_SECONDS)  # noqa: TID251 - a slow provider
        handler.reply(200, json.dumps(completion(summary(user))).encode())

    return Treatment(answering=answer)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("says_when", [True, False])
def test_four_workers_learn_the_rate_limit(
    cluster: Cluster, experiment: Experiment, *, says_when: bool
) -> None:
    """L01: at least 90 % of the allowed rate, under 2 % rejected after warm-up, nothing failed."""
    chunks = DOCUMENTS * CHUNKS_EACH
    experiment.begin(
        f"L01 fleet {'Retry-After' if says_when else 'no Retry-After'}",
        f"{FLEET} workers, {PER_SECOND:g} calls a second allowed; 429 "
        f"{'with' if says_when else 'without'} Retry-After",
    )
    admission = Admission.of(PER_SECOND, BURST)
    cluster.provider.treat(limited(admission, says_when=says_when), times=100 * chunks)
    cluster.start_scheduler()
    cluster.submit(*(cluster.documents.write(chunks=CHUNKS_EACH) for _ in range(DOCUMENTS)))
    for _ in range(FLEET):
        cluster.start_worker()

    # In the last tenth, too few chunks may be open for all slots.
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
