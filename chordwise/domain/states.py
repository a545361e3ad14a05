"""The states of runs, intakes, jobs, chunks and batches, and which of them are final."""

from __future__ import annotations

from enum import StrEnum


class IntakeOutcome(StrEnum):
    """The outcome of an item of a run; the values of `intakes.outcome`."""

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
"""The outcomes with a document in the run."""

FAILED_INTAKES = tuple(set(IntakeOutcome) - {*TAKEN_IN, IntakeOutcome.NOT_TAKEN})
"""The final outcomes without a document."""


class IntakeStatus(StrEnum):
    """The progress of the intake of a run; the values of `run_accounts.intake_status`."""

    TAKING_IN = "taking_in"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


class ListedStatus(StrEnum):
    """Who reads a listed file; the values of `listed_files.status`.

    `listed`: the process that holds the intake of the run. `waiting` and `reading`: any reader.
    """

    LISTED = "listed"
    WAITING = "waiting"
    READING = "reading"


class RunStatus(StrEnum):
    """The values of `runs.status`."""

    OPEN = "open"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class DeliveryEvent(StrEnum):
    """The values of `deliveries.event`."""

    RUN_FINISHED = "run.finished"
    RUN_PAUSED = "run.paused"
    RUN_CANCELLED = "run.cancelled"
    REPORT_WRITTEN = "report.written"
    VARIANT_STOPPED = "experiment.variant_stopped"
    ANSWERS_REGRESSED = "answers.regressed"


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
    """The status of a file of an inbox; the values of `inbox_files.status`."""

    CLAIMED = "claimed"
    SUBMITTED = "submitted"
    MOVING = "moving"
    DONE = "done"
    FAILED = "failed"


UNDELIVERED = (InboxStatus.CLAIMED, InboxStatus.SUBMITTED, InboxStatus.MOVING)
"""A file in one of these states is still processed by Chordwise."""

OPEN_CHUNKS = (ChunkStatus.PENDING, ChunkStatus.RUNNING, ChunkStatus.WAITING)
"""A chunk in one of these states still has work to do."""

FAILED_CHUNKS = (ChunkStatus.FAILED, ChunkStatus.QUARANTINED)
"""A chunk in one of these states has no answer and gets none without a retry."""

WORKING_JOBS = (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.SYNTHESIZING)
"""A job in one of these states progresses automatically."""

UNFINISHED_JOBS = (*WORKING_JOBS, JobStatus.PAUSED)
"""A job in one of these states keeps its run open."""

FOLLOWING_JOBS = (JobStatus.QUEUED, JobStatus.PAUSED)
"""A job in one of these states may wait for the answer of another job."""

RETRYABLE_JOBS = (
    JobStatus.PAUSED,
    JobStatus.PARTIAL,
    JobStatus.FAILED,
    JobStatus.QUARANTINED,
    JobStatus.CANCELLED,
)
"""The states of jobs that `chordwise continue` retries."""


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
    """How the questions of a run reach the provider; the values of `runs.lane`."""

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
"""A request in one of these states was not sent to a provider for its job."""

AWAITED_REQUESTS = (*UNASKED_REQUESTS, BatchRequestStatus.SUBMITTED)
"""A request in one of these states still waits for its answer."""


class DeliveryStatus(StrEnum):
    """The state of a delivery; a delivery without a receiver is skipped."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    SKIPPED = "skipped"


class CritiqueOutcome(StrEnum):
    """The outcome of a critique; the values in `results.critique`."""

    PASSED = "passed"
    REVISED = "revised"
    KEPT = "kept"
    FAILED = "failed"


MISSING_ROWS, MISSING_FIELDS = "missing_rows", "missing_fields"
"""The error codes of partial answers: lists lack rows, or fields have no valid answer."""
