"""Tests of the messages that a worker holds and of their return to the broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import redis

from worker.broker_connection import TolerantReceipts


@dataclass(slots=True, kw_only=True)
class Broker:
    """Holds unacknowledged messages; acts as client, pipeline and channel."""

    answers: bool = True
    unacked: set[str] = field(default_factory=set)
    unacked_key: str = "unacked"
    unacked_index_key: str = "unacked_index"
    do_restore: bool = False

    @contextmanager
    def conn_or_acquire(self, client: object = None) -> Iterator[Broker]:
        assert client is None
        yield self

    def pipeline(self) -> Broker:
        return self

    def zrem(self, _key: str, *_tags: str) -> Broker:
        return self

    def hdel(self, _key: str, *tags: str) -> Broker:
        if not self.answers:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")
        self.unacked.difference_update(tags)
        return self

    def execute(self) -> None:
        """End the transaction."""


def receipts_of(broker: Broker, *tags: str, limit: int) -> TolerantReceipts:
    receipts = TolerantReceipts(broker, limit)
    for tag in tags:
        broker.unacked.add(tag)
        receipts._delivered[tag] = tag
    return receipts


@pytest.fixture(autouse=True)
def _clear_unsettled() -> Iterator[None]:
    yield
    TolerantReceipts.unsettled.clear()


@pytest.mark.parametrize("is_other", [False, True], ids=["same", "other connection"])
def test_a_finished_message_makes_room_while_the_broker_does_not_answer(is_other: bool) -> None:  # noqa: FBT001 - a parameter
    """Its acknowledgement is sent later, also by another connection."""
    broker = Broker(answers=False)
    receipts = receipts_of(broker, "first", "second", limit=2)

    receipts.ack("first")
    has_room, held = receipts.can_consume(), set(broker.unacked)
    broker.answers = True
    (receipts_of(broker, "second", limit=2) if is_other else receipts).ack("second")

    assert has_room
    assert held == {"first", "second"}
    assert broker.unacked == set()
