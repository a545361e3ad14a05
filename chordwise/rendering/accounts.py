"""The account of a run as text: intakes, jobs, failures, budgets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted
from chordwise.domain.states import JobStatus
from chordwise.relations.accounts import Account
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import local_time, one_line
from chordwise.rendering.screen import hint, indented

MAX_FAILURES = 10_000
UNLIMITED = 1_000_000_000
_MESSAGE_WIDTH = 300
_MAX_REASONS = 30
_MAX_OF_A_REASON = 3
# Failures with the same values are grouped.
_REASON = itemgetter("what", "analysis_type", "state", "error_code", "error_message", "hint")


def render(account: Account) -> Iterator[RenderableType]:
    """Return the lines of intakes and jobs, each with whether it balances."""
    is_over = account.is_interrupted or account.finished_at is not None
    files = "an unknown number found" if is_over else "still being counted"
    if account.intakes_found is not None:
        files = f"{account.intakes_found:,} found"
    yield Text(f"Intakes  {files} = {_sum(account.outcomes)}{_intake(account)}")
    if account.is_interrupted:
        name = shlex.quote(one_line(account.run))
        yield Text(f"         → Continue with: chordwise continue {name}", style="dim")
    reused = f" · {account.reused:,} reused" if account.reused else ""
    planned = f"{account.jobs_planned:,} planned = {_sum(account.states)}"
    yield Text(f"Jobs     {planned}{_balance(account.jobs_balance)}{reused}")


def failures(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Return the failures, grouped by reason, each reason with a hint."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for failure in rows:
        groups.setdefault(_REASON(failure), []).append(failure)
    top_groups = list(groups.values())[:_MAX_REASONS]
    for group in top_groups:
        yield from map(_line, group[:_MAX_OF_A_REASON])
        if (more := len(group) - _MAX_OF_A_REASON) > 0:
            yield Text(f"  … and {more:,} more with the same error", style="dim")
        yield from _explained(group[0]["error_message"], group[0]["hint"])
    hidden = len(rows) - sum(len(group) for group in top_groups)
    if hidden > 0:
        yield Text(f"… and {hidden:,} more; query the view “failures” for all.", style="dim")


def notices(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Return the documents that need attention, each with the reason and a hint."""
    for notice in rows:
        yield Text("! ", style="yellow").append(one_line(notice["source"]), style="default")
        yield from _explained(notice["message"], notice["hint"])


def table(accounts: Sequence[Account]) -> Table:
    """Return one row for each run; names are not broken, so that they can be copied."""
    names = ("Run", "Status", "Started", "Jobs", "Problems")
    rows = (
        (
            one_line(account.run),
            _status(account),
            local_time(account.created_at),
            f"{account.states[JobStatus.SUCCEEDED]}/{account.jobs_planned}",
            Text(str(account.problems), style="yellow" if account.problems else ""),
        )
        for account in accounts
    )
    return layouts.folded(names, rows, whole=names[1:], right=names[3:])


def _status(account: Account) -> Text:
    if not account.is_interrupted and not account.not_taken:
        return Text(account.status)
    status = "interrupted" if account.is_interrupted else account.status
    return Text(f"{status}, {intake_progress(account)}", style="yellow")


def _sum(counts: Mapping[str, int]) -> str:
    parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    return " + ".join(parts) or "0"


def intake_progress(account: Account) -> str:
    """Return the progress of the intake."""
    if account.intakes_found is None:
        return f"{account.taken:,} taken in of an unknown number"
    return f"{account.taken:,} of {account.intakes_found:,} taken in"


def _intake(account: Account) -> str:
    """Return the state of the intake: interrupted, incomplete, or its balance."""
    if account.is_interrupted:
        return f" ✗ interrupted, {intake_progress(account)}"
    if account.not_taken:
        return f" · {intake_progress(account)}"
    return _balance(account.intakes_balance)


def _balance(balances: bool | None) -> str:  # noqa: FBT001 - the value to show
    return {True: " ✓", False: " ✗ does not balance", None: ""}[balances]


def _explained(message: str | None, advice: str | None) -> Iterator[RenderableType]:
    if message:
        yield indented(Text(one_line(message, _MESSAGE_WIDTH)), 4)
    if advice:
        yield hint(advice, _MESSAGE_WIDTH)


def _line(failure: Row) -> Text:
    line = Text("✗ ", style="red")
    line.append(one_line(failure["source"]), style="default")
    place = failure["analysis_type"] or ""
    if failure["start_char"] is not None:
        place += f", characters {failure['start_char']}–{failure['end_char']}"
    line.append(f"  {place}{' ' if place else ''}{failure['state']}", style="yellow")
    if failure["error_code"] and failure["error_code"] != failure["state"]:
        line.append(f" ({one_line(failure['error_code'])})", style="dim")
    return line


def heading(account: Account) -> Text:
    """Return the name, id and status of a run in one line."""
    line = Text(one_line(account.run), style="bold")
    is_interrupted = ", interrupted" if account.is_interrupted else ""
    line.append(f"  {account.status}{is_interrupted} · {account.run_id}", style="not bold dim")
    return line


def in_words(account: Account) -> str:
    """Return the outcome of a run in one sentence."""
    succeeded = account.states[JobStatus.SUCCEEDED]
    total = sum(account.states.values())
    ends = (JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.QUARANTINED, JobStatus.CANCELLED)
    problems = [
        f"{counted(account.states[status], 'analysis')} {status}"
        for status in (*ends, JobStatus.PAUSED)
        if account.states[status]
    ]
    if account.not_accepted:
        problems.append(f"{counted(account.not_accepted, 'document')} not accepted")
    sentence = f"{succeeded:,} of {counted(total, 'analysis')} succeeded"
    if account.is_interrupted or account.not_taken:
        sentence = f"{intake_progress(account)}; {sentence}"
    return f"{sentence}{'; ' if problems else ''}{', '.join(problems)}."


def budget_lines(caps: Sequence[Row]) -> Iterator[Text]:
    """Return a line for each cap."""
    for cap in caps:
        kind, _, name = cap["scope"].partition(":")
        whose = "this run" if kind == "run" else f"all runs on {name} UTC"
        unpriced, estimated = cap["unpriced_calls"], cap["estimated_calls"]
        parts = [f"{dollars(cap['spent_usd'])} of {dollars(cap['cap_usd'])} spent by {whose}"]
        if cap["reserved_usd"]:
            parts.append(f"{dollars(cap['reserved_usd'])} reserved for calls")
        parts.append(f"{dollars(cap['left_usd'])} left")
        if unpriced:
            parts.append(f"{counted(unpriced, 'call')} of unknown cost")
        if estimated:
            parts.append(f"{counted(estimated, 'call')} estimated (implausible report)")
        yield Text(f"Budget   {' · '.join(parts)}")
