"""Operation: Show the watched folders and their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.inbox import FAILED, side_car_name
from chordwise.domain.number_formats import counted
from chordwise.domain.states import InboxStatus
from chordwise.embedded import stack
from chordwise.errors import UsageError
from chordwise.pipeline.inbox import status
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import local_time, one_line
from chordwise.rendering.screen import hint, indented


def inbox(
    invocation: Invocation,
    *,
    limit: Annotated[int, typer.Option(min=0, help="The number of recent files to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the watched folders and their files.

    chordwise inbox

    chordwise inbox --json
    """
    settings, screen = invocation.settings(), invocation.screen
    if not settings.inbox.folders:
        raise UsageError(
            "No inbox is configured.", 'Set it in chordwise.toml: [inbox] folders = ["inbox"]'
        )
    reached = access.reach(invocation, settings)
    with access.reading(reached) as connection:
        inboxes = status.accounts(connection, reached, limit)
    watched = settings.inbox.enabled and stack.is_watching(settings)
    if as_json:
        screen.write_json(enabled=settings.inbox.enabled, watched=watched, inboxes=inboxes)
        return
    screen.show(*inbox_tables(inboxes))
    if not settings.inbox.enabled:
        screen.info("The inboxes are not watched: inbox.enabled is false.")
    elif watched is False:
        restart = "`chordwise down`, then " if stack.find(settings.home) is not None else ""
        screen.info("No scheduler watches the inboxes, and files wait.")
        screen.info(f"Run {restart}`chordwise up`.")


_MESSAGE_WIDTH = 300


def inbox_tables(inboxes: Sequence[Row]) -> Iterator[RenderableType]:
    """Return each inbox: its folder, counts, problems, and the most recent files."""
    for inbox in inboxes:
        yield Text(one_line(inbox["folder"]), style="bold")
        waiting = counted(inbox["waiting"], "file")
        yield Text(f"  {waiting} waiting · {inbox['in_analysis']:,} being analyzed")
        yield Text(f"  last 24 hours: {inbox['done']:,} done · {inbox['failed']:,} failed")
        if inbox["profiles"]:
            yield Text(f"  profiles: {one_line(', '.join(inbox['profiles']))}")
        for refused in inbox["refused"]:
            why = one_line(f"{refused['path']} {refused['reason']}.")
            yield Text(f"  {why}", style="yellow")
        yield from _held_back(inbox["held_back"])
        yield from _orphans(inbox)
        if inbox["recent"]:
            yield from _recent(inbox["recent"])
        if inbox["failed"]:
            failed = Path(inbox["folder"]).with_name(FAILED)
            yield Text(f"  {one_line(str(failed))}: NAME.json beside each file has the reason")


def _held_back(held_back: Sequence[Row]) -> Iterator[RenderableType]:
    for group in held_back:
        whose = f"profile {one_line(group['profile'])}" if group["profile"] else "no profile"
        what = f"{counted(group['files'], 'file')} of {whose} held back: {group['message']}"
        yield Text(f"  {one_line(what)}", style="yellow")
        if group["hint"]:
            yield hint(group["hint"])
    if held_back:
        yield Text(
            "  Restart the scheduler after a change in chordwise.toml; schemas need no restart."
        )


def _orphans(inbox: Row) -> Iterator[RenderableType]:
    for path in inbox["orphaned_side_cars"]:
        yield Text(f"  {one_line(path)} is a side-car without a file.", style="yellow")
    more = inbox["orphaned_side_car_count"] - len(inbox["orphaned_side_cars"])
    if more:
        yield Text(f"  … and {counted(more, 'side-car')} more without a file", style="yellow")
    if inbox["orphaned_side_cars"]:
        yield hint(f"The side-car of NAME.EXT is named {side_car_name('NAME.EXT')}.")


def _recent(recent: Sequence[Row]) -> Iterator[RenderableType]:
    rows = (
        (
            one_line(file["name"]),
            one_line(file["profile"]),
            Text(file["status"], style="yellow" if file["status"] == InboxStatus.FAILED else ""),
            local_time(file["taken_at"]),
            one_line(file["run"] or ""),
        )
        for file in recent
    )
    yield layouts.folded(("File", "Profile", "Status", "Taken", "Run"), rows, indent=2)
    for file in recent:
        if file["status"] == InboxStatus.FAILED and file["message"]:
            what = f"✗ {one_line(file['name'])}: {one_line(file['message'], _MESSAGE_WIDTH)}"
            yield indented(Text(what, style="yellow"), 2)
            if file["hint"]:
                yield hint(file["hint"], _MESSAGE_WIDTH)
