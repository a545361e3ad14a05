"""L02 to L05 and L10: a provider that fails, is slow or unreachable, or aborts responses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from llmock.pytest_plugin import LLMock

from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import add_model
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.fronts import front_of
from tests.faults.peer import ask_the_peer, invariants_beside
from tests.faults.provider import Treatment
from tests.faults.test_broker import wait
from tests.faults.wire import BROKEN, SLOW
from tests.peers.certificates import FAR_OFF, LONG_AGO, OPENSSL_IS_ABSENT, self_signed

CHUNKS = 24
# The breaker is open after at most this many failures, including those already in flight.
MAX_FAILURES = 9
RECOVERY_SECONDS = 60.0
BREAKER_SECONDS = 3.0
_EVERYTHING = 100_000


def start(cluster: Cluster, breaker_seconds: float) -> None:
    """Start a scheduler, a worker whose breaker has this duration, and a document."""
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_LIMITS__BREAKER_SECONDS=str(breaker_seconds))
    cluster.submit(cluster.documents.write(chunks=CHUNKS))


def bursts(cluster: Cluster, apart_seconds: float) -> list[int]:
    """Return the sizes of groups of requests that are separated by more than this time."""
    arrivals = [request.arrived_at for request in cluster.provider.requests]
    sizes = [1]
    for before, after in pairwise(arrivals):
        if after - before > apart_seconds:
            sizes.append(0)
        sizes[-1] += 1
    return sizes


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("status", "breaker_seconds", "seconds"),
    [
        (503, BREAKER_SECONDS, 6),
        (500, BREAKER_SECONDS, 15),
        (502, BREAKER_SECONDS, 15),
        (529, BREAKER_SECONDS, 15),
        (503, 15.0, 20),
    ],
)
def test_the_breaker_opens_during_an_outage(
    cluster: Cluster, experiment: Experiment, status: int, breaker_seconds: float, seconds: float
) -> None:
    """L02: the breaker opens, single calls probe the provider, and all is done a minute later."""
    experiment.begin(
        f"L02 {status} {seconds:g} s",
        f"every answer {status} for {seconds:g} s, circuit open for {breaker_seconds:g} s",
    )
    cluster.provider.treat(Treatment(status=status), times=_EVERYTHING)
    start(cluster, breaker_seconds)
    wait_until(lambda: bool(cluster.provider.requests), 60, "the outage begins")

    wait(seconds)
    met = bursts(cluster, breaker_seconds / 2)
    cluster.provider.forgive()
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=sum(met)),
        notes=f"failures until the circuit opened, then probes: {', '.join(map(str, met))}",
        bound_seconds=RECOVERY_SECONDS,
        tolerance=1.0,
    )
    assert met[0] <= MAX_FAILURES
    assert set(met[1:]) == {1}


@pytest.mark.thorough
def test_a_flapping_provider(cluster: Cluster, experiment: Experiment) -> None:
    """L02: each outage costs the failures that open the breaker, and no document."""
    flaps = 5
    experiment.begin("L02 flapping", f"{flaps} times 2 s of 502 and 2 s of answers")
    start(cluster, BREAKER_SECONDS)
    for _ in range(flaps):
        cluster.provider.treat(Treatment(status=502), times=_EVERYTHING)
        wait(2)
        cluster.provider.forgive()
        wait(2)
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=flaps * MAX_FAILURES), bound_seconds=RECOVERY_SECONDS, tolerance=1.0
    )


@pytest.mark.thorough
def test_an_outage_of_llmock_causes_no_retry_storm(
    cluster: Cluster, experiment: Experiment, llmock: LLMock
) -> None:
    """L02: llmock returns each server error; it detects no retry storm, and every wait is kept."""
    experiment.begin("L02 llmock", "2 answers each of 500, 502, 503 and 529 by llmock")
    for status in (500, 502, 503, 529):
        llmock.fail(status, times=2)
    ask_the_peer(cluster, llmock)

    start(cluster, BREAKER_SECONDS)

    experiment.finish(
        bound_seconds=RECOVERY_SECONDS + experiment.undisturbed_seconds,
        invariants=invariants_beside(llmock),
    )


DEADLINE_SECONDS = 4.0
TOLERANCE = 0.1
_FAILED = "SELECT count(*) FROM model_calls WHERE error_code IS NOT NULL"
_WAITED = """
SELECT min(latency_ms) / 1000.0::float8, max(latency_ms) / 1000.0::float8 FROM model_calls
WHERE error_code = 'model_timeout'"""
_DEADLINE = {"CHORDWISE_MODELS__PEER__TIMEOUT_SECONDS": str(DEADLINE_SECONDS)}


def assert_deadline_kept(cluster: Cluster, failed: int) -> None:
    """Check that every failed call failed at its deadline, within a tenth."""
    assert cluster.count(_FAILED) == failed
    shortest, longest = cluster.rows(_WAITED)[0]
    assert isinstance(shortest, float)
    assert isinstance(longest, float)
    assert shortest >= DEADLINE_SECONDS * (1 - TOLERANCE)
    assert longest <= DEADLINE_SECONDS * (1 + TOLERANCE)


def hold_all_slots(cluster: Cluster, experiment: Experiment, slow: list[Treatment]) -> None:
    """Treat the calls of all slots; check that the slots are free again after the deadline."""
    for treatment in slow:
        cluster.provider.treat(treatment)
    cluster.start_scheduler()
    cluster.start_worker(**_DEADLINE)

    cluster.submit(cluster.documents.write(chunks=24))

    experiment.finish(
        Allowance(extra_calls=len(slow)),
        bound_seconds=experiment.undisturbed_seconds + DEADLINE_SECONDS,
    )
    assert_deadline_kept(cluster, len(slow))
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_slow_answers_of_different_kinds_time_out(cluster: Cluster, experiment: Experiment) -> None:
    """L03, L04: the deadline applies to the whole call, and every slot is free after it."""
    experiment.begin(
        "L03 L04 each", "each slot: no response, or a byte of head or body every 0.5 s"
    )

    hold_all_slots(cluster, experiment, [*SLOW.values(), SLOW["no response"]])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("id_", "name"), [("L03", "no response"), ("L04", "the head"), ("L04", "the body")]
)
def test_slow_answers_of_one_kind_time_out(
    cluster: Cluster, experiment: Experiment, id_: str, name: str
) -> None:
    """L03, L04: as above, for each kind of slow answer alone."""
    experiment.begin(f"{id_} {name}", f"all slots wait for a slow provider: {name}")

    hold_all_slots(cluster, experiment, [SLOW[name]] * CONCURRENCY)


@pytest.mark.thorough
def test_half_open_provider_connections_time_out(cluster: Cluster, experiment: Experiment) -> None:
    """L03: calls over half-open connections end at the deadline, and new connections are opened."""
    experiment.begin("L03 lost bytes", "bytes to the provider lost until the first calls fail")
    cluster.start_scheduler()
    cluster.start_worker(**_DEADLINE)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.25)

    cluster.to_provider.swallow()
    cluster.wait_for(f"SELECT ({_FAILED}) > 0")
    cluster.to_provider.pass_on()
    experiment.fault_is_over()

    experiment.finish(
        Allowance(extra_calls=2 * CONCURRENCY),
        bound_seconds=experiment.undisturbed_seconds + DEADLINE_SECONDS,
    )
    assert_deadline_kept(cluster, cluster.count(_FAILED))


FEW_CHUNKS = 12
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"
FAILURE = "SELECT error_code, error_message, hint FROM jobs WHERE model = '{model}'"


def failure_of(cluster: Cluster, model: str) -> tuple[str, str, str]:
    """Return the code, message and hint of the job with this model."""
    ((code, what, hint),) = cluster.rows(FAILURE.format(model=model))
    return str(code), str(what), str(hint)


@pytest.mark.thorough
@pytest.mark.skipif(OPENSSL_IS_ABSENT, reason="makes its certificates with openssl")
@pytest.mark.parametrize(
    ("name", "host", "ends", "reason"),
    [
        ("expired", "localhost", LONG_AGO, "certificate has expired"),
        ("other-host", "elsewhere.test", FAR_OFF, "Hostname mismatch"),
        ("unknown", "localhost", FAR_OFF, "self-signed"),
    ],
)
def test_an_invalid_certificate_pauses_the_run(
    cluster: Cluster, experiment: Experiment, name: str, host: str, ends: str, reason: str
) -> None:
    """L10: nothing is sent, the run pauses with the reason, and continues with a valid one."""
    experiment.begin(
        f"L10 TLS {name}", f"a certificate: {reason}, then a valid one", chunks=FEW_CHUNKS
    )
    bad = self_signed(cluster.folder, name, host=host, ends=ends)
    good = self_signed(cluster.folder, "good")
    trusted = trust(
        cluster.folder, good.certificate, *([] if name == "unknown" else [bad.certificate])
    )
    with front_of(cluster.provider, context=bad.context()) as front:
        add_model(cluster, name, f"https://localhost:{front.port}/v1")
        cluster.start_scheduler()
        cluster.start_worker(SSL_CERT_FILE=str(trusted))
        run_id = cluster.submit(
            cluster.documents.write(chunks=FEW_CHUNKS), options=("--model", name)
        )

        cluster.wait_for("SELECT status = 'paused' FROM runs")
        code, what, hint = failure_of(cluster, name)
        assert code == "model_access"
        assert reason in what
        assert "SSL_CERT_FILE" in hint
        assert cluster.provider.requests == []
        front.context = good.context()
        experiment.fault_is_over()
        assert cluster.run("continue", "--no-wait", run_id).returncode == 0

        experiment.finish()


def trust(folder: Path, *certificates: Path) -> Path:
    """Return a file with the certificates that a worker trusts."""
    file = folder / "trusted.pem"
    file.write_text(
        "".join(certificate.read_text("utf-8") for certificate in certificates), "utf-8"
    )
    return file


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "base_url"),
    [("no-name", "http://nowhere.invalid/v1"), ("no-route", "http://[2001:db8::1]/v1")],
)
def test_an_unreachable_address_fails_the_document(
    cluster: Cluster, experiment: Experiment, name: str, base_url: str
) -> None:
    """L10: the document fails after the usual retries, and the hint names the setting."""
    experiment.begin(f"L10 {name}", f"{base_url}, one postponement allowed")
    add_model(cluster, name, base_url, seconds=4)
    cluster.start_scheduler()
    cluster.start_worker(CHORDWISE_PIPELINE__MAX_POSTPONEMENTS="1")

    cluster.submit(cluster.documents.write(chunks=1), options=("--model", name))

    allowed = frozenset({"succeeded", "failed"})
    experiment.finish(Allowance(ends=allowed), bound_seconds=45)
    code, what, hint = failure_of(cluster, name)
    assert code == "model_transport"
    assert "cannot be reached" in what or "could not be reached" in what
    assert "base_url" in hint


@pytest.mark.thorough
def test_redirects_are_not_followed(cluster: Cluster, experiment: Experiment) -> None:
    """L10: neither document nor key is sent to its target, not even to the metadata service."""
    experiment.begin("L10 redirect", f"307 to {METADATA_SERVICE}, then answers", chunks=FEW_CHUNKS)
    elsewhere = f"http://127.0.0.1:{cluster.to_provider.port}/v1/elsewhere"
    for target in (METADATA_SERVICE, elsewhere):
        cluster.provider.treat(strange.sends(b"", status=307, headers={"Location": target}))
    cluster.start_both()
    run_id = cluster.submit(cluster.documents.write(chunks=1))

    cluster.wait_for("SELECT status = 'paused' FROM runs")
    code, what, hint = failure_of(cluster, "peer")
    assert code == "model_access"
    assert METADATA_SERVICE in what
    assert "base_url" in hint
    assert len(cluster.provider.requests) == 1
    experiment.fault_is_over()
    assert cluster.run("continue", "--no-wait", run_id).returncode == 0
    cluster.wait_for("SELECT count(*) = 2 FROM model_calls WHERE error_code = 'model_access'")
    cluster.wait_for("SELECT status = 'paused' FROM runs")
    assert cluster.run("continue", "--no-wait", run_id).returncode == 0

    experiment.finish(Allowance(extra_calls=2))


@pytest.mark.thorough
def test_a_provider_on_ipv6_only(cluster: Cluster, experiment: Experiment) -> None:
    """L10: an IPv6 address in brackets works like any other."""
    experiment.begin("L10 IPv6", "a provider on [::1] only", chunks=FEW_CHUNKS)
    with front_of(cluster.provider, host="::1") as front:
        add_model(cluster, "six", f"http://[::1]:{front.port}/v1")
        cluster.start_both()

        cluster.submit(cluster.documents.write(chunks=FEW_CHUNKS), options=("--model", "six"))

        experiment.finish()


_GOOD = Treatment()
_FAILED_CALLS = (
    "SELECT error_code, count(*) FROM model_calls WHERE error_code IS NOT NULL GROUP BY 1"
)
# A chunk whose answers were all broken, and which was then postponed.
_POSTPONED = "SELECT count(*) FROM chunks WHERE attempts > 1"


def survive(cluster: Cluster, experiment: Experiment, broken: list[Treatment]) -> None:
    """Break every second answer; each such call is repeated, and no broken answer is stored."""
    for treatment in broken:
        cluster.provider.treat(treatment)
        cluster.provider.treat(_GOOD)
    cluster.start_both()

    cluster.submit(cluster.documents.write(chunks=CHUNKS))

    experiment.finish(Allowance(extra_calls=len(broken)))
    assert cluster.rows(_FAILED_CALLS) == [("model_transport", len(broken))]
    assert cluster.count(_POSTPONED) <= len(broken) // CONCURRENCY


@pytest.mark.thorough
def test_each_kind_of_broken_answer_is_requested_again(
    cluster: Cluster, experiment: Experiment
) -> None:
    """L05: an incomplete answer is never used, and the call is repeated."""
    experiment.begin("L05 each", f"{len(BROKEN)} ways to break an answer, one after the other")

    survive(cluster, experiment, list(BROKEN.values()))


@pytest.mark.thorough
@pytest.mark.parametrize("name", BROKEN)
def test_one_kind_of_broken_answer_is_requested_again(
    cluster: Cluster, experiment: Experiment, name: str
) -> None:
    """L05: as above, for each kind alone, on reused connections."""
    experiment.begin(f"L05 {name}", f"every second of 16 answers broken: {name}")

    survive(cluster, experiment, [BROKEN[name]] * 8)
