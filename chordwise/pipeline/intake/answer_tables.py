"""The table that contains the answers of a run: created or extended when the run begins."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from chordwise.domain import answer_tables, identifiers
from chordwise.domain.answer_tables import AnswerColumn
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunOptions, from_json
from chordwise.storage import answer_tables as stored
from chordwise.storage.runs import Run, newest_saved_as


def table_of(options: RunOptions) -> str | None:
    """Return the name of the table of answers; `None` if the run has none.

    Raises:
        UsageError: The name cannot be used for a table, or its family has no key or no date.
    """
    if options.family:
        answer_tables.family_of(options.family, _columns(options))
    if not options.save_as:
        return None
    name = identifiers.sql_identifier(options.save_as)
    if not name:
        raise UsageError(
            f"A table cannot be named “{options.save_as}”.",
            "Use letters from a to z, digits and underscores, such as --save-as contracts.",
        )
    return name


def ensure_table(session: Session, run: Run, options: RunOptions) -> None:
    """Create the table of a run's answers, or add the missing columns.

    Raises:
        ConfigurationError: The database role may not create views.
        UsageError: Another table has the name.
    """
    if run.saved_as is not None:
        kind = answer_tables.kind_of_rows(options.types)
        stored.renew(session, run.saved_as, kind, _columns(options), options.family)


def prune(session: Session, name: str) -> Sequence[str]:
    """Drop the columns that the newest run of a table does not have, and return their names.

    Raises:
        UsageError: The table does not exist, or views of the user depend on one of the columns.
    """
    table = stored.get(session, name)
    run = newest_saved_as(session, table.name)
    if run is None:
        raise UsageError(
            f"No run is saved as “{table.name}” any more.",
            f"`chordwise tables {table.name} --drop` drops the table.",
        )
    options = from_json(run.options, run.name)
    return stored.prune(session, table.name, _columns(options), options.family)


def _columns(options: RunOptions) -> list[AnswerColumn]:
    return answer_tables.columns_for(options.types, options.analysis)
