"""A run ends, and whoever wants to know is told, though the scheduler is killed over it."""

from __future__ import annotations

from tests.e2e.conftest import Stage
from tests.peers.webhook_receiver import WebhookReceiver, receiving

DELIVERY = """
[delivery]
webhook_url = "{url}"
webhook_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
allow_http = true
allow_private_addresses = true
timeout_seconds = 4
folder = "{folder}"
format = "csv"
"""
ALL_DELIVERED = "SELECT count(*) = 2 AND bool_and(status = 'delivered') FROM deliveries"


def configure(stage: Stage, receiver: WebhookReceiver) -> None:
    """Add the receiver and a folder to the settings of the processes."""
    (stage.folder / "delivered").mkdir()
    config = stage.folder / "chordwise.toml"
    more = DELIVERY.format(url=receiver.url, folder=stage.folder / "delivered")
    config.write_text(config.read_text("utf-8") + more, "utf-8")


def submit(stage: Stage) -> None:
    document = stage.folder / "bridge.txt"
    document.write_text("The bridge was opened in May. Carts crossed it.", "utf-8")
    stage.submit(str(document), "--run-name", "bridges")


def files(stage: Stage) -> list[str]:
    return sorted(path.name for path in (stage.folder / "delivered").iterdir())


def test_a_run_ends_and_others_are_told(stage: Stage) -> None:
    with receiving() as receiver:
        configure(stage, receiver)
        stage.processes.start("scheduler")
        stage.processes.start("worker")
        submit(stage)

        stage.wait_for(ALL_DELIVERED)
        shown = stage.processes.call("runs", "bridges")

    assert len(receiver.received) == 1
    assert files(stage) == ["bridges.account.json", "bridges.csv"]
    assert len((stage.folder / "delivered" / "bridges.csv").read_text("utf-8").splitlines()) == 2
    assert "webhook of run.finished · delivered" in shown.stdout
