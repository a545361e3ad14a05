"""The lanes: whether an answer is wanted now, or at half the price within a day."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """How a run's questions reach the provider; the values stand in `runs.lane`."""

    ONLINE = "online"
    BATCH = "batch"


class BatchStatus(StrEnum):
    """The values of `batches.status`."""

    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


class BatchRequestStatus(StrEnum):
    """The values of `batch_requests.status`."""

    PENDING = "pending"
    FOLLOWING = "following"
    SUBMITTED = "submitted"
    ANSWERED = "answered"
    FAILED = "failed"
    GIVEN_UP = "given_up"


UNASKED_REQUESTS = (BatchRequestStatus.PENDING, BatchRequestStatus.FOLLOWING)
"""No provider has heard of a request in one of these for the one who asks."""

AWAITED_REQUESTS = (*UNASKED_REQUESTS, BatchRequestStatus.SUBMITTED)
"""A request in one of these has its answer still to come."""
