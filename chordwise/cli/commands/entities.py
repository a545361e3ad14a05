"""Tables and reports: Group the values of a column that name the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import typer
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Author, Model, Yes
from chordwise.domain.entities import Action
from chordwise.domain.entities.spellings import EntityKind
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted
from chordwise.domain.states import Lane
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.asking.question import request_for
from chordwise.pipeline.learning import entities as grouping
from chordwise.pipeline.learning.entities import GroupedColumn
from chordwise.pipeline.quoting.tally import UnaskedModel
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.screen import Screen, indented
from chordwise.storage.answer_tables import SCHEMA
from chordwise.storage.database import Database

_MAX_ENTITIES, _MAX_NAMES = 20, 4
_KEYS = {"s": Action.MERGE, "d": Action.SPLIT}
_QUERY = 'chordwise sql "SELECT entity, count(*) FROM {} GROUP BY 1"'
_OUTPUT_TOKENS = 60  # of a verdict
_ASK = "[s]ame, [d]ifferent, s[k]ip, [q]uit: "


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityOptions:
    """The options of the command."""

    kind: Annotated[
        EntityKind | None, typer.Option(help="What the values name. Default: by the column's name.")
    ] = None
    merge: Annotated[
        tuple[str, str], typer.Option(metavar="A B", help="Decide that two values name the same.")
    ] = ("", "")
    split: Annotated[
        tuple[str, str], typer.Option(metavar="A B", help="Decide that B is not what A names.")
    ] = ("", "")
    undo: Annotated[
        bool, typer.Option("--undo", help="Withdraw the last decision; the history is kept.")
    ] = False
    review: Annotated[
        bool, typer.Option("--review", help="Decide on the doubtful pairs, one by one.")
    ] = False
    model: Model = None
    yes: Yes = False
    author: Author = ""


def entities(
    invocation: Invocation,
    column: Annotated[
        str, typer.Argument(metavar="TABLE.COLUMN", help="A column of texts, as contracts.parties.")
    ],
    options: EntityOptions,
    *,
    as_json: AsJson = False,
) -> None:
    """Group the values of a column that name the same. Run it again for new documents.

    chordwise entities contracts.parties

    chordwise entities contracts.parties --merge "Acme Corp." "Acme Group"

    chordwise entities contracts.parties --review
    """
    chosen = [any(options.merge), any(options.split), options.undo, options.review]
    if chosen.count(True) > 1:
        raise UsageError("Give only one of --merge, --split, --undo and --review.")
    with access.reading_context(access.reach(invocation)) as context:
        database = context.database
        with database.write() as session:
            target = grouping.find(session, column, options.kind)
            added = grouping.renew(session, target)
        if any(chosen):
            _decide(invocation.screen, database, target, options)
        else:
            _ask_model(invocation.screen, context, target, options)
        if options.review and not as_json:
            _review(invocation.screen, database, target, options.author)
        with database.read() as session:
            groups, pairs = grouping.listed(session, target), grouping.doubtful(session, target)
    if as_json:
        invocation.screen.write_json(
            column=target.name, kind=target.kind, new=added, entities=groups, doubtful=pairs
        )
    else:
        _show(invocation.screen, target, groups, len(pairs), added)


def _decide(
    screen: Screen, database: Database, target: GroupedColumn, options: EntityOptions
) -> None:
    author = options.author
    with database.write() as session:
        if any(options.merge):
            a, b = grouping.decide(session, target, Action.MERGE, options.merge, author)
            screen.info(f"“{a}” and “{b}” are one entity.")
        elif any(options.split):
            a, b = grouping.decide(session, target, Action.SPLIT, options.split, author)
            screen.info(f"“{b}” is not the entity of “{a}”.")
        elif options.undo:
            last = grouping.undo(session, target, author)
            screen.info(f"Withdrawn: {last.action} {' and '.join(f'“{n}”' for n in last.names)}.")


def _ask_model(
    screen: Screen, context: ReadingContext, target: GroupedColumn, options: EntityOptions
) -> None:
    """Let a language model decide on the doubtful pairs, unless that would be expensive."""
    settings = context.settings
    name = options.model or settings.model
    with context.database.read() as session:
        pairs = grouping.doubtful(session, target)
    try:
        if not pairs or not context.models.open(name).profile.understands_language:
            return
    except ConfigurationError as error:  # the values are grouped all the same
        screen.info(f"No model decides on doubtful pairs: {error.what}")
        return
    model = UnaskedModel(settings, settings.selected_names(name)[-1], Lane.ONLINE)
    tasks = (grouping.task_for(target, pair) for pair in pairs)
    sizes = [request_for(model, task).estimated_tokens for task in tasks]
    costs = [model.cost_usd(size, _OUTPUT_TOKENS, model.lane_now) for size in sizes]
    total = None if None in costs else sum(filter(None, costs), Decimal(0))
    price = "at an unknown cost" if total is None else f"for about {dollars(total)}"
    if not options.yes and (total is None or total > settings.budget.confirm_usd):
        screen.info(f"--yes asks {model.label} about {counted(len(pairs), 'pair')} {price}.")
        return
    decided, failure = grouping.ask_model(context, target, pairs, name)
    screen.info(f"{model.label} decided on {decided:,} of {len(pairs):,} doubtful pairs, {price}.")
    if failure is not None:
        screen.info(f"{failure.what} {failure.hint}")


def _review(screen: Screen, database: Database, target: GroupedColumn, author: str) -> None:
    """Ask about the doubtful pairs until none is left, or the person quits."""
    with database.read() as session:
        pairs = grouping.doubtful(session, target)
    for number, pair in enumerate(pairs):
        screen.show(Text(f"\n{len(pairs) - number:,} left · {pair['reason']}", style="bold"))
        for name, context in zip((pair["value"], pair["other"]), pair["contexts"], strict=True):
            where = f"  {context['document']}: {context['quote'] or ''}" if context else ""
            screen.show(indented(Text(one_line(f"{name}{where}", 300)), 2))
        key = ""
        while key not in (*_KEYS, "k", "q"):
            typed = screen.prompt(_ASK)
            key = "q" if typed is None else typed.strip().casefold()
        if key == "q":
            return
        if key in _KEYS:
            with database.write() as session:
                names = pair["value"], pair["other"]
                grouping.decide(session, target, _KEYS[key], names, author)


def _show(
    screen: Screen, target: GroupedColumn, groups: Sequence[Row], pairs: int, added: int
) -> None:
    cells = [
        (
            one_line(row["entity"], 80),
            f"{row['documents']:,}",
            one_line(" · ".join(row["values"][:_MAX_NAMES]), 200),
        )
        for row in groups[:_MAX_ENTITIES]
    ]
    screen.show(layouts.table(("Entity", "Documents", "Values"), cells, right=("Documents",)))
    values = sum(len(row["values"]) for row in groups)
    new = f", {added:,} new" if added else ""
    screen.info(
        f"{target.name} ({target.kind}): {counted(values, 'value')}{new}, {len(groups):,} entities."
    )
    if pairs:
        screen.info(f"{counted(pairs, 'doubtful pair')}:")
        screen.suggest(f"chordwise entities {target.name} --review")
    screen.suggest(_QUERY.format(f"{SCHEMA}.{target.view}"))
