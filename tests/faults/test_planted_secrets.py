"""S02: secrets that are planted in every possible place appear nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.fakes.processes import Processes, wait_until
from tests.faults.allowance import SUCCEEDED, Allowance
from tests.faults.cases import write_cases
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.oracle import INVARIANTS
from tests.faults.provider import CALL_HEADER, Treatment
from tests.faults.test_hostile_words import DELIVERY
from tests.peers.answering_server import AnsweringHandler, completion, summary
from tests.peers.webhook_receiver import WebhookReceiver, receiving

# None of them has the format of a key.
PLANTED = {
    "model key": "Planted-Model-Key-5d1c0f3a9b7e",
    "OpenAI key": "Planted-OpenAI-Key-7a1b",
    "Anthropic key": "Planted-Anthropic-Key-8b2c",
    "webhook secret": "UGxhbnRlZFNlY3JldE9mVGhlV2ViaG9vazEyMw==",
    "webhook token": "Planted-Token-9c3d",
    "web password": "scrypt:UGxhbnRlZFNhbHQ=:UGxhbnRlZEhhc2g=",
    "another password": "Planted-Password-0d4e",
}
_ELSEWHERE = PLANTED["another password"]
# Invalid settings, all at once, and unavailable servers; each value contains a secret.
INVALID = {
    "CHORDWISE_DATABASE_URL": f"postgresql://chordwise:{_ELSEWHERE}@127.0.0.1:port/chordwise",
    "CHORDWISE_BROKER_URL": f"redis://:{_ELSEWHERE}@[::1/0",
    "CHORDWISE_READER_URL": f"mysql://reader:{_ELSEWHERE}@127.0.0.1/chordwise",
    "CHORDWISE_MODELS__PEER__BASE_URL": f"http://chordwise:{_ELSEWHERE}@127.0.0.1:port/v1",
    "CHORDWISE_DELIVERIES__WEBHOOK__SECRET": _ELSEWHERE,
    "CHORDWISE_DELIVERIES__WEBHOOK__URL": f"ftp://hooks.example/{_ELSEWHERE}",
    "CHORDWISE_PIPELINE__LEASE_SECONDS": _ELSEWHERE,
    "CHORDWISE_OPENAI_KEY": _ELSEWHERE,
}
AWAY = {
    "CHORDWISE_DATABASE_URL": f"postgresql://chordwise:{_ELSEWHERE}@127.0.0.1:1/chordwise",
    "CHORDWISE_BROKER_URL": f"redis://:{_ELSEWHERE}@127.0.0.1:1/0",
    "CHORDWISE_READER_URL": f"postgresql://reader:{_ELSEWHERE}@127.0.0.1:1/chordwise",
    "CHORDWISE_MODELS__PEER__BASE_URL": f"http://chordwise:{_ELSEWHERE}@127.0.0.1:1/v1",
    "CHORDWISE_MODELS__PEER__API_KEY": "",  # otherwise it would be one of two passwords
}
_COMMANDS = (("config",), ("--debug", "doctor"))
_AFTERWARDS = (("config", "--json"), ("sql", "SELECT * FROM failures"), ("runs",), ("doctor",))
_ALL_TOLD = "SELECT count(*) > 0 AND bool_and(status <> 'pending') FROM deliveries"
# Errors that end one request, and errors that pause the run until a user retries it.
_FAILING = ("a message", "a text", "a title of an error", "an id", "a code")
_PAUSING = ("a refusal", "a title", "a redirect")


def repeating(where: str) -> Treatment:
    """Answer with an error that repeats the key of the request in one place."""

    def answer(handler: AnsweringHandler, user: str) -> None:
        key = handler.headers["Authorization"].rpartition(" ")[2]
        error = json.dumps({"error": {"message": f"Not with {key}.", "code": "x", "type": "x"}})
        coded = json.dumps({"error": {"message": "No.", "code": key, "type": key}})
        proper = json.dumps(completion(summary(user)))
        page = f"<html><title>Who is {key}?</title>"
        status, body, headers = {
            "a message": (400, error, {}),
            "a code": (400, coded, {}),
            "a text": (400, f"{'x' * 280} {key}", {}),
            "a title of an error": (502, page, {}),
            "an id": (200, proper, {CALL_HEADER: key}),
            "a refusal": (401, error, {}),
            "a title": (200, page, {}),
            "a redirect": (307, "", {"Location": f"/login/{key}"}),
        }[where]
        handler.reply(status, body.encode(), headers)

    return Treatment(answering=answer)


def plant(cluster: Cluster, receiver: WebhookReceiver) -> None:
    """Add the secrets to the environment of all processes, and a webhook to the settings."""
    url = f"{receiver.url}&key={PLANTED['webhook token']}"
    with (cluster.folder / "chordwise.toml").open("a", encoding="utf-8") as file:
        file.write(DELIVERY.format(url=url, secret=f"whsec_{PLANTED['webhook secret']}"))
    cluster.planted.update(PLANTED)
    cluster.members.environment = {
        **cluster.members.environment,
        "CHORDWISE_MODELS__PEER__API_KEY": PLANTED["model key"],
        "OPENAI_API_KEY": PLANTED["OpenAI key"],
        "ANTHROPIC_API_KEY": PLANTED["Anthropic key"],
        "CHORDWISE_WEB__PASSWORD_HASH": PLANTED["web password"],
    }


def run_with(cluster: Cluster, wrong: Mapping[str, str]) -> None:
    """Run commands and processes with wrong settings, and keep their output."""
    environment = {**cluster.members.environment, **wrong}
    processes = Processes(folder=cluster.folder, environment=environment)
    members = [cluster.members.start(role, "", **wrong) for role in ("worker", "scheduler", "web")]
    for words in _COMMANDS:
        done = processes.run(*words, timeout=300)
        cluster.spoken.append(done.stdout + done.stderr)
    for member in members:  # some wait for an unavailable server
        member.kill()


def work_through_defects(cluster: Cluster) -> None:
    """Raise errors in both processes during their work; other processes complete it."""
    cluster.start_scheduler("dispatch.sent:raise")
    cluster.start_worker("chunk.claimed:raise; chunk.before_commit:raise:2")
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=6))
    cluster.wait_until_finished(400)


def repeat_the_key(cluster: Cluster) -> None:
    """Make the provider return the key in every place where an error can contain it."""
    failing = write_cases(cluster, {name: repeating(name) for name in _FAILING})
    damaged = cluster.folder / "documents" / "damaged.docx"
    damaged.write_bytes(b"PK\x03\x04 no document")
    cluster.run("submit", *map(str, [*failing, damaged]))
    cluster.wait_until_finished(400)
    for where in _PAUSING:
        cluster.provider.treat(repeating(where))
        run = cluster.submit(cluster.documents.write(chunks=1, saying=f"Paused by {where}."))
        cluster.wait_for("SELECT count(*) = 1 FROM jobs WHERE status = 'paused'", 240)
        for words in (("runs", run), ("doctor", "--json"), ("continue", run)):
            cluster.run(*words)
        cluster.wait_until_finished(400)


def supervise(cluster: Cluster) -> None:
    """Run everything under the supervisor, run commands, and disconnect the database."""
    up = cluster.members.start("up", "", CHORDWISE_EMBEDDED__START="true")
    wait_until(lambda: "Ready." in up.text(), 300, "everything runs")
    for words in _AFTERWARDS:
        cluster.run(*words)
    cluster.to_database.refuse()
    cluster.run("runs")
    cluster.to_database.pass_on()
    assert up.terminate(60) == 0


@pytest.mark.thorough
@pytest.mark.timeout(1_800)
def test_secrets_appear_in_no_output(cluster: Cluster, experiment: Experiment) -> None:
    """S02: whatever fails in any process, no secret is shown, logged or stored."""
    secrets = len(PLANTED) + 2  # including those of the servers
    experiment.begin("S02", f"{secrets} secrets, and every known error that is displayed")
    with receiving(500, 302, 410) as receiver:
        plant(cluster, receiver)
        for wrong in (INVALID, AWAY):
            run_with(cluster, wrong)
        work_through_defects(cluster)
        repeat_the_key(cluster)
        cluster.wait_for(_ALL_TOLD, 240)
        supervise(cluster)
        experiment.fault_is_over()
        cluster.spoken.extend(delivery.body.decode() for delivery in receiver.received)
    known = sum(len(secrets) for secrets in (INVALID, AWAY, _FAILING, _PAUSING))

    experiment.finish(
        Allowance(ends=SUCCEEDED | {"failed", "partial"}, tracebacks=("InjectedError",)),
        notes=f"{known} errors that could contain a secret, of all processes",
        invariants=[(name, rule) for name, rule in INVARIANTS if name in ("I1", "I5", "I8")],
    )
