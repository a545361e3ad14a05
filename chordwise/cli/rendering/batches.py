"""What a run waits for in the batch lane, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.rendering.words import counted, moment
from chordwise.pipeline.runs.progress import BatchWait


def laid_out(found: Sequence[BatchWait]) -> Iterator[Text]:
    """Return a line for each batch."""
    for wait in found:
        yield Text(f"Batch    {' · '.join(_parts(wait))}", style="yellow" if wait.error else "")


def in_short(found: Sequence[BatchWait]) -> str:
    """Return what is waited for, since when, and until when at most.

    The times are those of the clock, so that it stays the same as long as nothing happens.
    """
    out = [wait for wait in found if wait.batch_id is not None]
    gathered = sum(wait.questions for wait in found if wait.batch_id is None)
    parts = []
    if out:
        questions = counted(sum(wait.questions for wait in out), "question")
        since = moment(min(wait.since for wait in out))
        noun = "1 batch" if len(out) == 1 else f"{len(out):,} batches"
        parts.append(f"{questions} in {noun} since {since}")
    if gathered:
        parts.append(f"{counted(gathered, 'question')} for the next batch")
    if deadlines := [wait.until for wait in found if wait.until is not None]:
        parts.append(f"online after {moment(min(deadlines))}")
    return ", ".join(parts)


def _parts(wait: BatchWait) -> Iterator[str]:
    yield one_line(f"{wait.provider}/{wait.model}")
    if wait.provider_id:
        yield one_line(wait.provider_id)
    yield one_line(wait.provider_status or wait.status)
    yield _questions(wait)
    yield f"since {moment(wait.since)}"
    if wait.until is not None:
        yield f"online after {moment(wait.until)}"
    if wait.error:
        yield one_line(wait.error)


def _questions(wait: BatchWait) -> str:
    questions = counted(wait.questions, "question")
    done = f"{wait.done:,} of {wait.request_count:,} done" if wait.done else ""
    others = f"{wait.request_count:,} in all" if wait.request_count > wait.questions else ""
    remark = done or others
    return f"{questions} ({remark})" if remark else questions
