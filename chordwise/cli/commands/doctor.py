"""Commands 8: Check the installation and suggest fixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chordwise.cli import access, scheduled
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.embedded.stack_plan import autostart_fingerprint
from chordwise.errors import ChordwiseError, ExitCode
from chordwise.pipeline.diagnosis.doctor import diagnose
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, failed
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import hint
from chordwise.settings import Settings
from chordwise.settings.environment import unknown_variables

_STYLES = {CheckStatus.OK: "green", CheckStatus.WARN: "yellow", CheckStatus.FAIL: "red"}


def doctor(
    invocation: Invocation,
    *,
    ask: Annotated[
        bool, typer.Option("--ask", help="Send a short request to the model; may cost money.")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Check the installation and suggest fixes. Starts the embedded services to check them.

    chordwise doctor

    chordwise doctor --ask --json
    """
    checks: list[Check] = []
    for check in _checks(invocation, asks_model=ask):
        checks.append(check)
        if not as_json:
            invocation.screen.show(*_lines(check))
    # The highest: a configuration error outranks an unavailable service.
    code = max((check.exit_code for check in checks), default=ExitCode.SUCCESS)
    if as_json:
        invocation.screen.write_json(checks=checks, exit_code=int(code))
    return code


def _checks(invocation: Invocation, *, asks_model: bool) -> Iterator[Check]:
    try:
        settings = invocation.settings()
    except ChordwiseError as error:
        yield failed("settings", error)
        return
    file = type(settings).toml_file
    yield Check(name="settings", finding=f"from {file}" if file else "defaults and environment")
    if unknown := unknown_variables(type(settings).model_fields):
        yield Check(
            name="environment",
            status=CheckStatus.WARN,
            finding=f"unknown variables: {', '.join(unknown)}",
            hint="The form is CHORDWISE_SECTION__NAME; `chordwise config` shows all settings.",
        )
    try:
        settings = _reach(invocation, settings)
    except ChordwiseError as error:
        yield failed("stack", error)
    yield from _unwatched(settings)
    yield from diagnose(settings, asks_model=asks_model)
    try:
        with access.read(settings) as session:
            yield from scheduled.checks(settings, session)
    except ChordwiseError:  # an earlier check reports it
        yield from scheduled.checks(settings, None)


def _unwatched(settings: Settings) -> Iterator[Check]:
    state = stack.find(settings.home)
    is_ready = state is not None and state.level is Level.ALL
    if is_ready and autostart_fingerprint(settings) and stack.is_watching(settings) is False:
        yield Check(
            name="stack",
            status=CheckStatus.WARN,
            finding="runs with other settings: these inboxes and schedules are not active",
            hint="Run `chordwise down`, then `chordwise up` with these settings.",
        )


def _reach(invocation: Invocation, settings: Settings) -> Settings:
    """Use the running stack, or start one if a service is embedded."""
    if settings.database_url is not None and settings.broker_url is not None:
        return settings
    state = stack.find(settings.home)
    if state is None or state.level is not Level.ALL:
        return access.reach(invocation, settings, Level.ALL)
    # Not through `reach`: a stack with other settings would get a new worker.
    return stack.with_addresses(settings, state)


def _lines(check: Check) -> Iterator[RenderableType]:
    line = Table.grid()
    line.add_column(no_wrap=True)
    line.add_column(overflow="fold")
    status = Text(f"{check.status.upper():<5}", style=_STYLES[check.status])
    status.append(f"{check.name:<12} ", style="bold")
    line.add_row(status, Text(one_line(check.finding)))
    yield line
    if check.hint:
        yield hint(check.hint, columns=5)
