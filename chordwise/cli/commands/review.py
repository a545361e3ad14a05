"""Commands 3: Decide on the cells to check, one by one."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Author, ScopeOptions
from chordwise.domain.learning.certification import advice
from chordwise.domain.learning.feedback_input import FeedbackInput, parsed
from chordwise.domain.learning.truths import Verdict
from chordwise.errors import UsageError
from chordwise.pipeline.learning import certification, feedback
from chordwise.pipeline.learning.certification import Bounds
from chordwise.pipeline.learning.scope import Scope
from chordwise.relations.relation import Row
from chordwise.relations.review import CELLS, QUEUE, item, next_item
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen, indented
from chordwise.storage.database import Database, driver

_AROUND = 200
_OTHERS_WIDTH = 400
_KEYS = {"a": Verdict.APPROVED, "c": Verdict.CORRECTED, "x": Verdict.REJECTED}
_SKIP, _QUIT = "s", "q"
_ASK = "[a]ccept, [c]orrect, reject [x], [s]kip, [q]uit: "
_ASK_SEEN = "seen [a], reject [x], [s]kip, [q]uit: "


def review(
    invocation: Invocation,
    selected: ScopeOptions,
    *,
    queue: Annotated[
        str, typer.Option(metavar="FIELD", help="Check what certifies this field or label instead.")
    ] = "",
    author: Author = "",
    as_json: AsJson = False,
) -> None:
    """Decide on the cells to check, one by one. Run it again to continue.

    chordwise review contracts
    """
    settings = invocation.settings()
    with access.database(access.reach(invocation, settings)) as database:
        with database.read() as session:
            scope = selected.find(session, settings)
            queued = certification.queue(session, scope, queue) if queue else None
        screen, done = invocation.screen, Counter[Verdict | None]()
        if as_json and queued:
            columns = ("source", "job_id", "path")
            cells = [{name: row[name] for name in columns} for row in queued["candidates"]]
            names = {name: queued[name] for name in ("analysis_type", "name")}
            screen.write_json(**names, to_check=cells)
            return
        if as_json:
            with database.read() as session:
                screen.write_json(to_check=CELLS.read(driver(session), scope.cells))
            return
        questions = _cells(database, scope)
        if queued:
            questions = _of_certificate(database, screen, queued)
        for question, place in questions:
            screen.show(*render(question, place))
            key = _ask_verdict(database, screen, question, author)
            if key == _QUIT:
                break
            done[_KEYS.get(key)] += 1  # `None` for a skipped answer
        _print_summary(screen, database, scope, queued, done)


def _cells(database: Database, scope: Scope) -> Iterator[tuple[Row, str]]:
    after = None
    while True:
        with database.read() as session:
            question = next_item(driver(session), scope.cells, after)
        if question is None:
            return
        yield question, f"{question['left']:,} left"
        after = question["place"]


def _of_certificate(database: Database, screen: Screen, queued: Row) -> Iterator[tuple[Row, str]]:
    candidates = queued["candidates"]
    said = advice(queued["verdict"], queued["expected_checks"], queued["expected_free"])
    if said:
        screen.info(f"At the last certification: {said}.")
    for index, candidate in enumerate(candidates, start=1):
        try:
            with database.read() as session:
                question = item(driver(session), candidate["job_id"], candidate["path"])
        except UsageError as error:
            screen.info(f"{candidate['source']}: {error.what}")
            continue
        yield question, f"{index:,} of {len(candidates):,}"


def _ask_verdict(database: Database, screen: Screen, question: Row, author: str) -> str:
    is_warning = question["value"] is None and not question["is_prose"]
    while True:
        typed = screen.prompt(_ASK_SEEN if is_warning else _ASK)
        key = _QUIT if typed is None else typed.strip().casefold()
        if key in (_SKIP, _QUIT):
            return key
        if key not in _KEYS or (is_warning and key == "c"):
            continue
        right = "The right value (leave empty for none): "
        if choices := question["choices"]:
            right = f"The right label ({', '.join(choices)}): "
        written = screen.prompt(right) if key == "c" else ""
        if written is None:
            return _QUIT
        value = parsed(written) if key == "c" else None
        verdict = Verdict.SEEN if is_warning and key == "a" else _KEYS[key]
        entered = FeedbackInput(verdict=verdict, path=question["path"], value=value, author=author)
        try:
            with database.write() as session:
                feedback.decide(session, question["job_id"], question["result_id"], entered)
        except UsageError as error:
            screen.info(f"{error.what} {error.hint}")
            continue
        return key


def render(question: Row, place: str) -> Iterator[RenderableType]:
    """Return the answer under review and its quote with the surrounding text."""
    yield Text(f"\n{place} · {one_line(question['source'])}", style="bold")
    value = question["value"]
    if value is None:
        for name, text in question["output"].items():
            if isinstance(text, str) and text:
                yield indented(Text(one_line(f"{name}: {text}")), 2)
    else:
        yield indented(Text(one_line(f"{value['item']}: {value['shown']}")), 2)
        if others := [one["value"] for one in question["others"]]:
            said = "accept also applies to the other values, which reject and correct keep"
            said = f"{said}: {'; '.join(others)}"
            yield indented(Text(one_line(said, _OTHERS_WIDTH)), 2)
    notes = [*question["reasons"], f"confidence {question['confidence']:.2f}"]
    notes += [value["place"]] if value and value["place"] else []
    yield indented(Text(one_line(", ".join(notes)), style="dim"), 2)
    excerpt = question["excerpt"]
    before, after = excerpt["before"][-_AROUND:], excerpt["after"][:_AROUND]
    shown = Text(one_line(f"… {before}") if before else "", style="dim")
    shown.append(f" {one_line(excerpt['quote'])} ", style="not dim bold")
    shown.append(f"{one_line(after)} …" if after else "")
    yield indented(shown, 2)


def _print_summary(
    screen: Screen,
    database: Database,
    scope: Scope,
    queued: Row | None,
    done: Counter[Verdict | None],
) -> None:
    checked = done.total() - done[None]
    if queued is None:
        with database.read() as session:
            left = QUEUE.count(driver(session), scope.cells)
        screen.info(f"{checked:,} reviewed, {left:,} left.")
        return
    screen.info(f"{checked:,} reviewed, {len(queued['candidates']) - checked:,} left.")
    if done[None]:
        screen.info("Certification stops counting at a skipped answer. These come first next time.")
    parts = scope.arguments
    if Bounds(max_error=queued["max_error"], risk=queued["risk"]) != Bounds():
        shares = ("--max-error", queued["max_error"]), ("--risk", queued["risk"])
        parts += [part for name, share in shares for part in (name, f"{100 * share:g}%")]
    screen.suggest(one_line(f"chordwise certify {shlex.join(parts)}".rstrip()))
