"""L10: addresses that lead nowhere, elsewhere, or to somebody who cannot show who it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import strange_answers as strange
from tests.faults.allowance import Allowance
from tests.faults.cases import add_model
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.fronts import front_of
from tests.peers.certificates import FAR_OFF, LONG_AGO, OPENSSL_IS_ABSENT, self_signed

CHUNKS = 12
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"
FAILURE = "SELECT error_code, error_message, hint FROM jobs WHERE model = '{model}'"


def failure_of(cluster: Cluster, model: str) -> tuple[str, str, str]:
    """Return code, sentence and hint of the job that asked a model."""
    ((code, what, hint),) = cluster.rows(FAILURE.format(model=model))
    return str(code), str(what), str(hint)


@pytest.mark.thorough
@pytest.mark.skipif(OPENSSL_IS_ABSENT, reason="makes its certificates with openssl")
@pytest.mark.parametrize(
    ("name", "host", "ends", "reason"),
    [
        ("expired", "localhost", LONG_AGO, "certificate has expired"),
        pytest.param(
            "other-host", "elsewhere.test", FAR_OFF, "Hostname mismatch", marks=pytest.mark.thorough
        ),
        pytest.param("unknown", "localhost", FAR_OFF, "self-signed", marks=pytest.mark.thorough),
    ],
)
def test_a_certificate_that_is_not_good(
    cluster: Cluster, experiment: Experiment, name: str, host: str, ends: str, reason: str
) -> None:
    """L10: nothing is sent, the run pauses with the reason, and goes on with a good one."""
    experiment.begin(f"L10 TLS {name}", f"a certificate: {reason}, then a good one", chunks=CHUNKS)
    bad = self_signed(cluster.folder, name, host=host, ends=ends)
    good = self_signed(cluster.folder, "good")
    trusted = trust(
        cluster.folder, good.certificate, *([] if name == "unknown" else [bad.certificate])
    )
    with front_of(cluster.provider, context=bad.context()) as front:
        add_model(cluster, name, f"https://localhost:{front.port}/v1")
        cluster.start_scheduler()
        cluster.start_worker(SSL_CERT_FILE=str(trusted))
        run_id = cluster.submit(cluster.documents.write(chunks=CHUNKS), options=("--model", name))

        cluster.wait_for("SELECT status = 'paused' FROM runs")
        code, what, hint = failure_of(cluster, name)
        assert code == "model_access"
        assert reason in what
        assert "SSL_CERT_FILE" in hint
        assert cluster.provider.requests == []
        front.context = good.context()
        experiment.fault_is_over()
        assert cluster.run("retry", "--no-wait", run_id).returncode == 0

        experiment.finish()


def trust(folder: Path, *certificates: Path) -> Path:
    """Return a file with the certificates that a worker is to trust."""
    file = folder / "trusted.pem"
    file.write_text("".join(each.read_text("utf-8") for each in certificates), "utf-8")
    return file


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "base_url"),
    [("no-name", "http://nowhere.invalid/v1"), ("no-route", "http://[2001:db8::1]/v1")],
)
def test_an_address_that_leads_nowhere(
    cluster: Cluster, experiment: Experiment, name: str, base_url: str
) -> None:
    """L10: after the usual patience the document fails, and the hint names the setting."""
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
def test_a_redirect(cluster: Cluster, experiment: Experiment) -> None:
    """L10: neither document nor key follows it, not even to the machine's own metadata."""
    experiment.begin("L10 redirect", f"307 to {METADATA_SERVICE}, then answers", chunks=CHUNKS)
    elsewhere = f"http://127.0.0.1:{cluster.to_provider.port}/v1/elsewhere"
    for target in (METADATA_SERVICE, elsewhere):
        cluster.provider.treat(strange.sends(b"", status=307, headers={"Location": target}))
    cluster.start_scheduler()
    cluster.start_worker()
    run_id = cluster.submit(cluster.documents.write(chunks=1))

    cluster.wait_for("SELECT status = 'paused' FROM runs")
    code, what, hint = failure_of(cluster, "peer")
    assert code == "model_access"
    assert METADATA_SERVICE in what
    assert "base_url" in hint
    assert len(cluster.provider.requests) == 1
    experiment.fault_is_over()
    assert cluster.run("retry", "--no-wait", run_id).returncode == 0
    cluster.wait_for("SELECT count(*) = 2 FROM model_calls WHERE error_code = 'model_access'")
    cluster.wait_for("SELECT status = 'paused' FROM runs")
    assert cluster.run("retry", "--no-wait", run_id).returncode == 0

    experiment.finish(Allowance(extra_calls=2))


@pytest.mark.thorough
def test_a_provider_on_ipv6_only(cluster: Cluster, experiment: Experiment) -> None:
    """L10: an address in brackets is as good as any other."""
    experiment.begin("L10 IPv6", "a provider on [::1] only", chunks=CHUNKS)
    with front_of(cluster.provider, host="::1") as front:
        add_model(cluster, "six", f"http://[::1]:{front.port}/v1")
        cluster.start_scheduler()
        cluster.start_worker()

        cluster.submit(cluster.documents.write(chunks=CHUNKS), options=("--model", "six"))

        experiment.finish()
