"""Tests that an idle scheduler executes few statements, and is notified of new work at once."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import pytest
from sqlalchemy import text

from chordwise.pipeline.runtime.messages import FAN_OUT
from chordwise.settings import Settings
from chordwise.storage import outbox
from chordwise.storage.database import open_engine
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State
from scheduler.inbox import PROCESS
from scheduler.loop import Leadership, Listener, Loop
from tests.fakes.counting import recorded
from tests.fakes.pipeline import Pipeline, a_pipeline
from tests.fakes.processes import wait_until

SOON = 10.0
SECONDS = 3
# Recovery reads whether work is unfinished.
RECOVERY_STATEMENTS = 6


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return a_pipeline(settings)


def a_listener(settings: Settings, wake: Event) -> Listener:
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, pool_size=1, name="a listener")
    return Listener(engine, outbox.CHANNEL, wake)


@contextmanager
def running(pipeline: Pipeline) -> Iterator[Listener]:
    settings, stop, wake = pipeline.context.settings, Event(), Event()
    assert settings.database_url is not None
    listener = a_listener(settings, wake)
    leader = Leadership(open_engine(settings.database_url, pool_size=1), silence_seconds=30)
    thread = threading.Thread(
        target=Loop(pipeline.context, leader, listener, wake).run, args=(stop,)
    )
    thread.start()
    try:
        yield listener
    finally:
        stop.set()
        thread.join(SOON)
    assert not thread.is_alive()


def promise(pipeline: Pipeline) -> None:
    with pipeline.context.database.write() as session:
        outbox.promise(session, FAN_OUT, [uuid.uuid4()], reason="a test")


def is_sent(pipeline: Pipeline) -> bool:
    return pipeline.value("SELECT count(*) FROM outbox WHERE sends = 0") == 0


def test_an_idle_scheduler_executes_few_statements_and_sends_a_message_at_once(
    pipeline: Pipeline,
) -> None:
    """It polls once a second, the outbox less often, and runs no rule of recovery."""
    waits = []
    with running(pipeline) as listener:
        wait_until(lambda: listener.hears, SOON, "a listener")
        time.sleep(SECONDS)  # noqa: TID251 - until it is idle
        with recorded(pipeline.context.database.engine) as statements:
            time.sleep(SECONDS)  # noqa: TID251 - the time that is measured
        for _ in range(5):
            promise(pipeline)
            begun_at = time.monotonic()
            wait_until(lambda: is_sent(pipeline), SOON, "a message")
            waits.append(time.monotonic() - begun_at)

    polls = sum("FROM outbox" in statement for statement, _ in statements)
    assert 1 <= polls <= SECONDS
    assert len(statements) - polls <= SECONDS + 2 + RECOVERY_STATEMENTS
    assert sorted(waits)[2] < 1


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_stuck_inbox_makes_the_scheduler_unhealthy(pipeline: Pipeline, *, is_dead: bool) -> None:
    home = pipeline.context.settings.home
    liveness.write_heartbeat(home, PROCESS, State.WORKING if is_dead else State.OVERDUE)
    if is_dead:
        os.utime(liveness.alive_file(home, PROCESS), (0, 0))
    with running(pipeline):
        wait_until(lambda: liveness.last_sign(home, "scheduler").is_fresh, SOON, "a heartbeat")
        sign = liveness.last_sign(home, "scheduler")

    assert not sign.is_healthy
    assert str(sign) == (
        "The scheduler is waiting for files of an inbox that take longer than they may."
    )


def test_a_later_message_notifies_no_scheduler(pipeline: Pipeline, settings: Settings) -> None:
    wake = Event()
    listener = a_listener(settings, wake)
    listener.start()
    wait_until(lambda: listener.hears and wake.is_set(), SOON, "a listener")
    wake.clear()

    pipeline.execute(
        "INSERT INTO outbox (id, task, reason, urgency, sends, due_at) VALUES"
        " (gen_random_uuid(), 'a task', 'a test', 1, 0, now() + interval '5 seconds')"
    )
    wakes_early = wake.wait(1.0)
    promise(pipeline)
    wakes_now = wake.wait(SOON)
    listener.stop()

    assert (wakes_early, wakes_now) == (False, True)


def test_a_message_is_sent_without_a_notification(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE outbox DISABLE TRIGGER tell_of_outbox")

    with running(pipeline) as listener:
        wait_until(lambda: listener.hears, SOON, "a listener")
        promise(pipeline)
        wait_until(lambda: is_sent(pipeline), SOON, "a message")


def test_several_schedulers_are_notified_of_one_message(pipeline: Pipeline) -> None:
    settings, wakes = pipeline.context.settings, [Event(), Event()]
    listeners = [a_listener(settings, wake) for wake in wakes]
    for listener in listeners:
        listener.start()
    wait_until(lambda: all(listener.hears for listener in listeners), SOON, "listeners")
    for wake in wakes:
        wake.clear()

    promise(pipeline)
    assert all(wake.wait(SOON) for wake in wakes)

    with pipeline.context.database.write() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'a listener' AND datname = current_database()"
            )
        )
    wait_until(lambda: not any(listener.hears for listener in listeners), SOON, "the loss")
    for wake in wakes:
        wake.clear()
    assert all(wake.wait(SOON) for wake in wakes), "both poll after they have reconnected"
    for listener in listeners:
        listener.stop()
