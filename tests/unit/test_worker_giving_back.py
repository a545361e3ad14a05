"""Messages go back to the broker although Celery closes connections at the same time."""

from __future__ import annotations

import pytest
import redis

from worker import transport


class Receipts:
    """Holds three messages on a connection that somebody closes so many times."""

    def __init__(self, closed: int) -> None:
        self.closed = closed

    def give_back(self) -> int:
        """Give the messages back, unless the connection is closed meanwhile."""
        self.closed -= 1
        if self.closed >= 0:
            raise redis.exceptions.ConnectionError("Connection closed by server.")
        return 3


@pytest.mark.parametrize(("closed", "given"), [(0, 3), (1, 3), (2, None)])
def test_a_connection_that_is_closed_meanwhile(
    monkeypatch: pytest.MonkeyPatch, closed: int, given: int | None
) -> None:
    """It is tried once more; what stays behind then is said to, and raises nothing."""
    monkeypatch.setattr(transport.PatientReceipts, "in_use", {Receipts(closed)})

    found = transport.give_back(5)

    assert found == given
