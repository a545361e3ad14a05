"""The lanes: whether an answer is wanted now, or at half the price within a day."""

from __future__ import annotations

from enum import StrEnum


class Lane(StrEnum):
    """How a run's questions reach the provider; the values stand in `runs.lane`."""

    ONLINE = "online"
    BATCH = "batch"
