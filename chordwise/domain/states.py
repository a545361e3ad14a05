"""The states that runs, intakes, jobs and chunks can be in, and which of them are the end."""

from __future__ import annotations

from enum import StrEnum


class IntakeOutcome(StrEnum):
    """What became of a thing that a run saw; the values of `intakes.outcome`."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    ENCRYPTED = "encrypted"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    NOT_TAKEN = "not_taken"


TAKEN_IN = (IntakeOutcome.ACCEPTED, IntakeOutcome.DUPLICATE)
"""A document is in the run."""

FAILED_INTAKES = tuple(set(IntakeOutcome) - {*TAKEN_IN, IntakeOutcome.NOT_TAKEN})
"""What was read, or could not be, and gave no document."""


class IntakeStatus(StrEnum):
    """How far the intake of a run is; the values of `run_accounts.intake_status`."""

    TAKING_IN = "taking_in"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class RunStatus(StrEnum):
    """The values of `runs.status`."""

    OPEN = "open"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    """The values of `jobs.status`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SYNTHESIZING = "synthesizing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class ChunkStatus(StrEnum):
    """The values of `chunks.status`."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class InboxStatus(StrEnum):
    """The values of `inbox_files.status`: where a file of an inbox lies, and what comes next."""

    TAKING = "taking"
    TAKEN = "taken"
    SUBMITTED = "submitted"
    DELIVERING = "delivering"
    DONE = "done"
    FAILED = "failed"


UNDELIVERED = (
    InboxStatus.TAKING,
    InboxStatus.TAKEN,
    InboxStatus.SUBMITTED,
    InboxStatus.DELIVERING,
)
"""A file in one of these is still ours to look after."""

OPEN_CHUNKS = (ChunkStatus.PENDING, ChunkStatus.RUNNING, ChunkStatus.WAITING)
"""A chunk in one of these still has work to come."""

FAILED_CHUNKS = (ChunkStatus.FAILED, ChunkStatus.QUARANTINED)
"""A chunk in one of these has no answer and gets none by itself."""

WORKING_JOBS = (
    JobStatus.QUEUED,
    JobStatus.RUNNING,
    JobStatus.WAITING,
    JobStatus.SYNTHESIZING,
)
"""A job in one of these moves on by itself."""

UNFINISHED_JOBS = (*WORKING_JOBS, JobStatus.PAUSED)
"""A job in one of these keeps its run open."""

FOLLOWING_JOBS = (JobStatus.QUEUED, JobStatus.PAUSED)
"""A job in one of these may wait for the answer of another job."""

RETRYABLE_JOBS = (
    JobStatus.PAUSED,
    JobStatus.PARTIAL,
    JobStatus.FAILED,
    JobStatus.QUARANTINED,
    JobStatus.CANCELLED,
)
"""What `chordwise retry` retries."""


class ScheduleRunStatus(StrEnum):
    """The values of `schedule_runs.status`."""

    DUE = "due"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPIRED = "expired"


UNFINISHED_SCHEDULE_RUNS = (
    ScheduleRunStatus.DUE,
    ScheduleRunStatus.RUNNING,
    ScheduleRunStatus.WAITING,
)


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
"""A request in one of these was not sent to a provider for the job that asks."""

AWAITED_REQUESTS = (*UNASKED_REQUESTS, BatchRequestStatus.SUBMITTED)
"""A request in one of these has its answer still to come."""
