"""Tests of deliveries: each run end has one effect; webhooks are guarded and signed."""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import httpcore
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier

from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import DeliveryEvent
from chordwise.errors import DeliveryError, DeliveryRefusedError, ModelAccessError
from chordwise.llm.connections import Deadline
from chordwise.pipeline.deliveries import delivery_attempts
from chordwise.pipeline.deliveries.receivers.file import AnswerFolder
from chordwise.pipeline.deliveries.receivers.webhook import Webhook, guarded_network
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import run_control
from chordwise.settings import Settings
from chordwise.settings.receivers import Receiver
from chordwise.storage import deliveries
from tests.fakes.pipeline import SHORT, Pipeline, a_pipeline, a_run, quoting_the_text
from tests.peers.faulty_server import faulty_server, header_drip
from tests.peers.webhook_receiver import WebhookReceiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the convention's own example
BODY = json.dumps({"run": "Überall"}, ensure_ascii=False).encode()
OUTSIDE = "1.1.1.1"


def webhook_at(url: str, **values: object) -> Webhook:
    return Webhook.model_validate(
        {
            "url": SecretStr(url),
            "secret": SecretStr(SECRET),
            "allow_http": True,
            "allow_private_addresses": True,
            **values,
        }
    )


def post(receiver: WebhookReceiver, **values: object) -> None:
    webhook_at(receiver.url, **values).post("run_1", int(time.time()), BODY)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_third_party_library_verifies_the_signature(status: int) -> None:
    with receiving(status) as receiver:
        post(receiver)

    (request,) = receiver.received
    assert request.body == BODY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("chordwise/")
    assert Verifier(SECRET).verify(request.body.decode(), dict(request.headers)) == {
        "run": "Überall"
    }


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with receiving(200) as target, receiving(status) as receiver:
        receiver.location = target.url

        with pytest.raises(DeliveryError, match=f"redirects the webhook .HTTP {status}"):
            post(receiver)

    assert len(receiver.received) == 1
    assert target.received == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 410])
def test_any_status_other_than_2xx_is_a_failure(status: int) -> None:
    """410 rejects the delivery permanently."""
    with receiving(status) as receiver, pytest.raises(DeliveryError) as caught:
        post(receiver)

    assert isinstance(caught.value, DeliveryRefusedError) is (status == 410)
    assert f"HTTP {status}" in caught.value.what
    assert "secret" not in str(caught.value.args)


def test_a_slow_receiver_is_timed_out() -> None:
    """Single bytes of a header do not extend the time."""
    with (
        receiving(200, delay_seconds=1.0) as receiver,
        pytest.raises(DeliveryError, match=r"within 0\.2 s"),
    ):
        post(receiver, timeout_seconds=0.2)
    with faulty_server() as server:
        server.play(header_drip)
        with pytest.raises(DeliveryError, match="did not respond"):
            webhook_at(server.base_url, timeout_seconds=0.5).post("run_1", 1, BODY)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::ffff:7f00:1]"]
)
def test_every_spelling_of_a_private_address_is_refused(host: str) -> None:
    with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        webhook = webhook_at(f"http://{host}:{port}", allow_private_addresses=False)

        with pytest.raises(DeliveryError, match=r"not a public|has no address") as caught:
            webhook.post("run_1", 1, BODY)

    assert host != "127.0.0.1" or "allow_private_addresses" in caught.value.hint
    assert receiver.received == []


class Recording(httpcore.NetworkBackend):
    """Records the addresses of connections instead of making them."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def connect_tcp(
        self,
        host: str,
        port: int,  # noqa: ARG002 - the port's signature
        timeout: float | None = None,  # noqa: ARG002 - as above
        local_address: str | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[object] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        self.addresses.append(host)
        raise httpcore.ConnectError("connection refused")


class Resolver:
    """A resolver that returns a different answer to each query."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.questions = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("hook.example.org", 443)
        self.questions += 1
        return self.answers.pop(0)


def connect(
    resolver: Resolver, error: type[Exception] = httpcore.ConnectError, match: str | None = None
) -> Sequence[str]:
    deadline, sockets = Deadline(), Recording()
    deadline.start(5)
    network = guarded_network(deadline, allow_private=False, resolve=resolver, sockets=sockets)
    with pytest.raises(error, match=match):
        network.connect_tcp("hook.example.org", 443)
    return sockets.addresses


def test_the_checked_addresses_are_the_ones_connected_to() -> None:
    """A name is resolved once, so a later private answer has no effect (DNS rebinding).

    A mix of public and private addresses could be used on a second attempt.
    """
    resolver = Resolver([OUTSIDE, "2606:4700:4700::1111"], ["127.0.0.1"])
    mixed = Resolver([OUTSIDE, "169.254.169.254"])

    assert connect(resolver) == [OUTSIDE, "2606:4700:4700::1111"]
    assert resolver.questions == 1
    assert connect(mixed, DeliveryError, r"169\.254\.169\.254") == []


def test_an_unreachable_receiver_is_a_failure() -> None:
    with receiving() as receiver:
        url = receiver.url

    with pytest.raises(DeliveryError, match="cannot be reached"):
        webhook_at(url).post("run_1", 1, BODY)
    with pytest.raises(DeliveryError, match="has no address"):
        webhook_at("http://nobody.invalid/").post("run_1", 1, BODY)


NOW_DUE = "UPDATE deliveries SET due_at = now() WHERE status = 'pending'"
STATES = "SELECT string_agg(kind || ' ' || status, ', ' ORDER BY created_at, kind) FROM deliveries"


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings, quoting_the_text, repeat_last=True)


def with_receiver(pipeline: Pipeline, kind: str, receiver: Receiver) -> Pipeline:
    settings = pipeline.context.settings.model_copy(update={"deliveries": {kind: receiver}})
    return replace(pipeline, context=replace(pipeline.context, settings=settings))


def delivering_to(pipeline: Pipeline, receiver: WebhookReceiver, **values: object) -> Pipeline:
    return with_receiver(pipeline, "webhook", webhook_at(receiver.url, **values))


def delivering_into(
    pipeline: Pipeline, folder: Path, format_: ExportFormat = ExportFormat.JSONL
) -> Pipeline:
    return with_receiver(pipeline, "file", AnswerFolder(folder=folder, format=format_))


def deliver(pipeline: Pipeline) -> int:
    delivery_attempts.skip_unwanted(pipeline.context)
    count = 0
    while delivery_attempts.deliver_next(pipeline.context):
        count += 1
    return count


def a_finished_run(pipeline: Pipeline, name: str = "") -> Submission:
    options = replace(a_run(), name=name) if name else a_run()
    return pipeline.analyze(SHORT, options=options)


def test_the_account_of_a_finished_run_is_sent_once(pipeline: Pipeline) -> None:
    submission = a_finished_run(pipeline)

    with receiving() as receiver:
        attempts = sum(deliver(delivering_to(pipeline, receiver)) for _ in range(2))

    (request,) = receiver.received
    message = json.loads(request.body)
    assert attempts == 1
    assert message["type"] == "run.finished"
    assert message["schema_version"] == 1
    assert message["data"]["account"]["run"] == submission.name
    assert message["data"]["account"]["states"]["succeeded"] == 1
    assert message["data"]["usage"]["total"] == 1
    assert "bridge" not in request.body.decode()
    assert pipeline.value(STATES) == "file skipped, webhook delivered"


def test_an_unwanted_delivery_is_never_attempted(pipeline: Pipeline) -> None:
    """This also holds for a run that ends after such deliveries were skipped."""
    delivery_attempts.skip_unwanted(pipeline.context)
    a_finished_run(pipeline)

    assert not delivery_attempts.deliver_next(pipeline.context)
    assert pipeline.value(STATES) == "file pending, webhook pending"


def test_a_failed_delivery_is_retried_with_the_same_id(pipeline: Pipeline) -> None:
    a_finished_run(pipeline)

    with receiving(500, 503, 200) as receiver:
        scheduler = delivering_to(pipeline, receiver, first_wait_seconds=100)
        waits = []
        for _ in range(3):
            assert deliver(scheduler) == 1
            waits.append(pipeline.value("SELECT max(due_at) - now() FROM deliveries"))
            assert deliver(scheduler) == 0
            pipeline.execute(NOW_DUE)

    names = {request.identity for request in receiver.received}
    assert len(receiver.received) == 3
    assert len(names) == 1
    assert len({request.body for request in receiver.received}) == 1
    assert 75 < waits[0].total_seconds() < 125 < waits[1].total_seconds() < 245  # type: ignore[attr-defined]  # a timedelta
    assert pipeline.value(STATES) == "file skipped, webhook delivered"
    assert pipeline.value("SELECT max(attempts) FROM deliveries") == 3


def test_a_message_that_waits_is_signed_with_the_new_secret(pipeline: Pipeline) -> None:
    """The secret is replaced after a failed attempt; the receiver accepts both meanwhile."""
    new = "whsec_" + base64.b64encode(b"the secret that follows the first").decode()
    a_finished_run(pipeline)

    with receiving(503, 200) as receiver:
        for secret in (SECRET, new):
            assert deliver(delivering_to(pipeline, receiver, secret=SecretStr(secret))) == 1
            pipeline.execute(NOW_DUE)

    assert pipeline.value(STATES) == "file skipped, webhook delivered"
    for secret, request in zip((SECRET, new), receiver.received, strict=True):
        assert Verifier(secret).verify(request.body.decode(), dict(request.headers))


@pytest.mark.parametrize(("status", "earlier", "received"), [(500, 0, 2), (410, 0, 1), (200, 2, 0)])
def test_a_delivery_fails_after_the_last_attempt(
    pipeline: Pipeline, status: int, earlier: int, received: int
) -> None:
    """It ends at once after status 410, or if all attempts have killed the scheduler."""
    a_finished_run(pipeline)
    pipeline.execute("UPDATE deliveries SET attempts = :attempts", attempts=earlier)

    with receiving(status) as receiver:
        for _ in range(3):
            deliver(delivering_to(pipeline, receiver, max_attempts=2))
            pipeline.execute(NOW_DUE)

    assert len(receiver.received) == received
    assert pipeline.value(STATES) == "file skipped, webhook failed"
    last = str(pipeline.value("SELECT max(last_error) FROM deliveries"))
    assert received == 0 or f"HTTP {status}" in last
    assert pipeline.value("SELECT count FROM incidents WHERE kind = 'delivery_failed'") == 1


def test_an_unrecorded_attempt_is_repeated_with_the_same_id(pipeline: Pipeline) -> None:
    """A scheduler killed between sending and recording retries after the timeout."""
    a_finished_run(pipeline)

    with receiving() as receiver:
        scheduler = delivering_to(pipeline, receiver)
        deliver(scheduler)
        pipeline.execute("UPDATE deliveries SET status = 'pending' WHERE kind = 'webhook'")
        too_early = deliver(scheduler)
        pipeline.execute(NOW_DUE)
        deliver(scheduler)

    first, second = receiver.received
    assert too_early == 0
    assert (first.identity, first.body) == (second.identity, second.body)


def test_every_end_of_a_run_is_delivered(settings: Settings) -> None:
    failing = ModelAccessError("The key is wrong.", "Mend it.")
    pipeline = a_pipeline(settings, failing, quoting_the_text, repeat_last=True)
    submission = pipeline.analyze(SHORT)
    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)
    other = pipeline.submit(f"{SHORT} Or not.")
    run_control.cancel(pipeline.context.database, other.run_id)
    run_control.cancel(pipeline.context.database, other.run_id)

    with receiving() as receiver:
        deliver(delivering_to(pipeline, receiver))

    types = [json.loads(request.body)["type"] for request in receiver.received]
    assert types == ["run.paused", "run.finished", "run.cancelled"]


def test_the_answers_of_a_run_are_written_to_a_folder(pipeline: Pipeline, tmp_path: Path) -> None:
    """A missing folder is not created, because it may be a mount point of another machine."""
    folder = tmp_path / "later"
    a_finished_run(pipeline, "the other one")
    submission = a_finished_run(pipeline, "reports 2026")
    deliver(delivering_into(pipeline, folder))
    assert not folder.exists()
    folder.mkdir()
    pipeline.execute(NOW_DUE)

    deliver(delivering_into(pipeline, folder))

    (line,) = (folder / "reports_2026.jsonl").read_text("utf-8").splitlines()
    account = json.loads((folder / "reports_2026.account.json").read_text("utf-8"))
    assert json.loads(line)["run"] == submission.name
    assert account["account"]["run_id"] == str(submission.run_id)
    assert len(list(folder.glob("*"))) == 4
    assert pipeline.value("SELECT count(*) FROM deliveries WHERE status = 'delivered'") == 2


def test_a_repeated_delivery_leaves_one_file(pipeline: Pipeline, tmp_path: Path) -> None:
    """Killed after the file, after the account, or before both, it leaves the same two files."""
    a_finished_run(pipeline, "once")
    scheduler = delivering_into(pipeline, tmp_path, ExportFormat.CSV)

    for gone in ([], ["once.csv"], ["once.csv", "once.account.json"]):
        deliver(scheduler)
        for name in gone:
            (tmp_path / name).unlink()
        pipeline.execute("UPDATE deliveries SET status = 'pending' WHERE kind = 'file'")
        pipeline.execute(NOW_DUE)
        deliver(scheduler)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["once.account.json", "once.csv"]
    assert len((tmp_path / "once.csv").read_text("utf-8").splitlines()) == 2


def test_existing_files_are_not_overwritten(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("theirs", "utf-8")
    os.mkfifo(tmp_path / "mine-2.account.json")
    submission = a_finished_run(pipeline, "../../mine")
    deliver(delivering_into(pipeline, tmp_path))
    pipeline.execute("UPDATE jobs SET status = 'failed'")
    run_control.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    deliver(delivering_into(pipeline, tmp_path))

    assert (tmp_path / "mine.jsonl").read_text("utf-8") == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mine-2.account.json",
        "mine-3.account.json",
        "mine-3.jsonl",
        "mine-4.account.json",
        "mine-4.jsonl",
        "mine.jsonl",
    ]


def test_a_report_is_announced_once(pipeline: Pipeline) -> None:
    occurrence = uuid.uuid4()
    content: JsonObject = {"schedule": "plots", "file": "/reports/plots.html"}
    for _ in range(2):
        with pipeline.context.database.write() as session:
            event = DeliveryEvent.REPORT_WRITTEN
            deliveries.announce(session, event, content=content, occurrence_id=occurrence)

    with receiving(200) as receiver:
        assert deliver(delivering_to(pipeline, receiver)) == 1

    message = json.loads(receiver.received[0].body)
    assert (message["type"], message["data"]) == ("report.written", content)
    assert receiver.received[0].headers["webhook-id"].startswith("report_")


REPORT = "<!doctype html><title>Kosten in €</title>"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["report", "nothing", "pipe", "link", "encoding", "large"])
def test_a_report_is_sent_with_its_webhook_and_no_other_file_instead(
    pipeline: Pipeline, tmp_path: Path, kind: str
) -> None:
    """Other users may be able to write to the folder of reports."""
    file = tmp_path / "plots.html"
    match kind:
        case "report":
            file.write_text(REPORT, "utf-8")
        case "pipe":
            os.mkfifo(file)
        case "link":
            file.with_name("secret").write_text("key", "utf-8")
            file.symlink_to(file.with_name("secret"))
        case "encoding":
            file.write_bytes("für".encode("cp1252"))
        case "large":
            file.touch()
            os.truncate(file, 17 * 1024 * 1024)
    content: JsonObject = {"schedule": "plots", "file": str(file)}
    with pipeline.context.database.write() as session:
        deliveries.announce(session, DeliveryEvent.REPORT_WRITTEN, content=content)

    with receiving(200) as receiver:
        assert deliver(delivering_to(pipeline, receiver, report=True)) == 1

    html = REPORT if kind == "report" else None
    assert json.loads(receiver.received[0].body)["data"] == {**content, "html": html}
