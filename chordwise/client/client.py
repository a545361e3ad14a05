"""The client: submission, results, feedback, certification, experiments, and SQL."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeAlias, Unpack

from pydantic import SecretStr
from sqlalchemy import select

from chordwise.client.run import Connection, Result, Run, analysis_types, member
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.identifiers import nearest
from chordwise.domain.json_values import JsonValue
from chordwise.domain.learning.experiments import Outcome
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.domain.number_formats import parse_share
from chordwise.domain.states import RunStatus
from chordwise.errors import UsageError
from chordwise.pipeline.exports.table import distinct
from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.run_options import (
    RunArguments,
    RunOptions,
    differing,
    effective_options,
    requested,
    to_json,
)
from chordwise.pipeline.intake.submit import Resume, Submission, open_or_resume
from chordwise.pipeline.learning import certification, experiments, feedback
from chordwise.pipeline.learning import refresh as refreshing
from chordwise.pipeline.learning import scope as scopes
from chordwise.pipeline.learning.refresh import RefreshArguments, Target
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.runs import ask as asking
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runtime.context import ReadingContext, reading_context
from chordwise.readers.discovery import FileList, absolute, discover, spellings
from chordwise.readers.reader import Reader
from chordwise.relations import review
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.settings import Profile, Settings, load
from chordwise.storage import intakes, runs
from chordwise.storage.database import driver
from chordwise.storage.runs import Run as StoredRun
from chordwise.telemetry.logging import configure_library

NO_OPTIONS = Profile()
Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_CELLS_AT_ONCE = 500
_MAX_QUOTES = 1_000


class Client:
    """A client of the stack on this machine, or of external servers.

    Settings are read from `chordwise.toml` and the environment, as by the commands; the arguments
    override them by name. Services are started and connections opened on first use. A client may be
    shared by threads. As a context manager it closes its connections.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        config: str | os.PathLike[str] | None = None,
        home: str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> None:
        """Read the settings.

        Raises:
            ConfigurationError: A file is missing or invalid, or a value is invalid.
            UsageError: No setting has the name of an argument.
        """
        _refuse_unknown(settings, Settings.model_fields)
        configure_library()
        file = Path(config) if config is not None else None
        addresses = {
            "database_url": SecretStr(database_url) if database_url else None,
            "broker_url": SecretStr(broker_url) if broker_url else None,
        }
        folder = Path(home) if home is not None else None
        self._connection = Connection(load(file, home=folder, **addresses, **settings), file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; runs continue."""
        self._connection.close()

    def submit(
        self, paths: Paths, options: Profile = NO_OPTIONS, **arguments: Unpack[RunArguments]
    ) -> Run:
        """Take in documents and return the run that analyzes them in the background.

        `options` override the entries of the `profile` of this name. If `run_name` is the name of a
        run with the same options and paths, that run is returned, and its intake is resumed if it
        was interrupted. A task that is repeated therefore submits once.

        Raises:
            UsageError: Nothing matches the paths, the options contradict each other, the run of
                this name has other options, or its expected cost needs `yes=True` or a budget.
            ConfigurationError: The model is unknown, or a setting is missing.
            ServiceUnavailableError: A service does not start or cannot be reached.
        """
        _refuse_unknown(arguments, RunArguments.__annotations__)
        listed = _listed(paths)
        run_options = requested(self._connection.settings, options, arguments)
        run_options = replace(run_options, paths=tuple(map(absolute, listed)))
        run = self._existing_run(run_options)
        if run is not None:
            return run
        files = FileList()
        for file in discover(listed):
            files.append(file)
        context = self._connection.context
        entries = found_files.Entries(context.settings, files)
        reason = "" if arguments.get("yes") else quoting.too_expensive(context, run_options, files)
        if reason:
            raise UsageError(reason, "Pass yes=True, or limit the cost with budget_usd.")
        resume = Resume(context, lambda _: None, time.sleep)  # noqa: TID251 - waits in real time
        now = datetime.now(UTC)  # noqa: TID251 - the clock
        return self._take_in(open_or_resume(context, run_options, now, entries, resume))

    def quote(
        self, paths: Paths, options: Profile = NO_OPTIONS, **arguments: Unpack[RunArguments]
    ) -> quoting.Quote:
        """Estimate the tokens and the cost of an analysis; nothing is stored or sent to a model.

        Raises:
            UsageError: Nothing matches the paths, or the options contradict each other.
        """
        _refuse_unknown(arguments, RunArguments.__annotations__)
        settings, files = self._connection.settings, discover(_listed(paths))
        run_options = requested(settings, options, arguments)
        return quoting.estimate_files(self._reading(), files, run_options)

    def run(self, name: str = "latest") -> Run:
        """Return a run by its name or id.

        Raises:
            UsageError: The run does not exist.
        """
        with self._connection.database.read() as session:
            run = runs.find(session, name)
            return Run(self._connection, run.id, run.name)

    def runs(self, limit: int = 100) -> list[Run]:
        """Return the newest runs, newest first."""
        with self._connection.database.read() as session:
            newest = select(StoredRun.id, StoredRun.name).order_by(StoredRun.id.desc()).limit(limit)
            return [Run(self._connection, *row) for row in session.execute(newest)]

    def results(
        self, *, types: Sequence[AnalysisType | str] = (), document: str = ""
    ) -> Iterator[Result]:
        """Yield the newest answer to each question about each document, newest first.

        `document` is a substring of a source or title, or a document's id.
        """
        selected = ResultSelection(types=analysis_types(types), document=document)
        yield from Result.read(self._connection, selected)

    def certify(
        self,
        name: str,
        *,
        types: Sequence[AnalysisType | str] = (),
        max_error: float | str = 0.02,
        risk: float | str = 0.05,
    ) -> Sequence[Row]:
        """Mark the answers that can be accepted without review; return a certificate per field.

        `name` is the name of a run or a profile.

        Raises:
            UsageError: The run or the profile does not exist, or a share is invalid.
        """
        bounds = certification.Bounds(
            max_error=parse_share("max_error", str(max_error)), risk=parse_share("risk", str(risk))
        )
        return certification.certify(self._connection.database, self._scope(name, types), bounds)

    def cells_to_check(
        self, name: str | None = None, *, types: Sequence[AnalysisType | str] = ()
    ) -> Iterator[Row]:
        """Yield the cells to check of a run or a profile, or of all current answers.

        Each is yielded once, whether a decision follows or not, in the order of the review pages.

        Raises:
            UsageError: The run or the profile does not exist.
        """
        database, scope = self._connection.database, self._scope(name, types)
        after = None
        while True:
            with database.read() as session:
                cells = review.queued(driver(session), scope.cells, after, _CELLS_AT_ONCE)
            if not cells:
                return
            for cell in cells:
                try:
                    with database.read() as session:
                        question = review.question_about(driver(session), cell)
                except UsageError:
                    continue
                yield question
            after = cells[-1]["place"]

    def answers_to_check(
        self, field: str, name: str, *, types: Sequence[AnalysisType | str] = ()
    ) -> Iterator[Row]:
        """Yield the answers to check before a field or label can be certified.

        Their order is the random one that `certify` has drawn. Answers that were replaced in the
        meantime are omitted.

        Raises:
            UsageError: The run or the profile does not exist, or the field is not certified yet.
        """
        database, scope = self._connection.database, self._scope(name, types)
        with database.read() as session:
            candidates = certification.queue(session, scope, field)["candidates"]
        for candidate in candidates:
            try:
                with database.read() as session:
                    question = review.item(driver(session), candidate["job_id"], candidate["path"])
            except UsageError:
                continue
            yield question

    def decide(
        self, question: Row, verdict: Verdict | str, value: JsonValue = None, *, author: str = ""
    ) -> bool:
        """Approve, reject or correct an answer; return false if this decision is already stored.

        `value` is the corrected value.

        Raises:
            UsageError: The answer was replaced in the meantime, or the value is not valid for the
                question.
        """
        verdict = member(Verdict, verdict, "verdict")
        path = question["path"]
        entered = FeedbackInput(verdict=verdict, path=path, value=value, author=author)
        with self._connection.database.write() as session:
            decision = feedback.decide(session, question["job_id"], question["result_id"], entered)
        return decision is not None

    def stale_answers(
        self, name: str | None = None, **arguments: Unpack[RefreshArguments]
    ) -> Sequence[Row]:
        """Return the numbers of stale answers of a run or a profile, with the reasons.

        Raises:
            UsageError: The run or the profile does not exist, or none is named.
            ConfigurationError: The model, or a template, is unknown.
        """
        return refreshing.survey(self._reading(), self._renewed(name, arguments))

    def refresh(self, name: str | None = None, **arguments: Unpack[RefreshArguments]) -> Run | None:
        """Renew the stale answers of a run or a profile in a new run; `None` if there are none.

        `budget_usd` is the cap of the new run.

        Raises:
            UsageError: The run or the profile does not exist, none is named, or `run_name` is
                taken.
            ConfigurationError: The model, or a template, is unknown.
            ServiceUnavailableError: A service does not start or cannot be reached.
        """
        target = self._renewed(name, arguments)
        if not any(row["due"] for row in refreshing.survey(self._reading(), target)):
            return None
        now = datetime.now(UTC)  # noqa: TID251 - the clock
        return self._take_in(refreshing.begin(self._connection.context, target, now))

    def start_experiment(
        self,
        name: str,
        profile: str,
        variants: Mapping[str, Mapping[str, object]],
        **arguments: Unpack[experiments.ExperimentArguments],
    ) -> Row:
        """Start an experiment that compares a profile with variants of it.

        `variants` has the changed entries of the profile by the name of the variant.

        Raises:
            UsageError: The arguments contradict each other, the name is taken, a variant asks the
                same question as the profile, or the profile already has an experiment.
            ConfigurationError: The profile or a model does not exist, or a price is unknown.
        """
        _refuse_unknown(arguments, experiments.ExperimentArguments.__annotations__)
        if "outcome" in arguments:
            arguments["outcome"] = member(Outcome, arguments["outcome"], "outcome")
        changed = [
            (variant, {entry: str(value) for entry, value in changes.items()})
            for variant, changes in variants.items()
        ]
        experiments.start(self._reading(), name, profile, changed, arguments)
        return self.experiment(name)

    def experiment(self, name: str) -> Row:
        """Return the current comparison of the variants of an experiment.

        Raises:
            UsageError: The experiment does not exist.
        """
        with self._connection.database.read() as session:
            return experiments.status(session, self._connection.settings, name)[0]

    def conclude_experiment(self, name: str) -> Row:
        """End an experiment without promoting a variant. Its answers are kept.

        Raises:
            UsageError: The experiment does not exist or is already concluded.
        """
        with self._connection.database.write() as session:
            running = experiments.find_running(session, name)
            (status,) = experiments.status(session, self._connection.settings, name)
            experiments.conclude(session, running, status, None)
        return self.experiment(name)

    def sql(self, statement: str) -> list[dict[str, object]]:
        """Run a read-only statement as the reader role and return its rows.

        Raises:
            UsageError: The statement is not read-only, or PostgreSQL refuses it.
            ConfigurationError: The reader role is missing, or cannot log in.
        """
        with user_sql.run_query(
            self._connection.settings.reader_url or self._connection.address, statement
        ) as answer:
            names = distinct(answer.columns)
            return [dict(zip(names, row, strict=True)) for row in answer.rows]

    def ask(
        self, question: str, table: str = "", model: str = "", paths: Paths = ()
    ) -> dict[str, object]:
        """Return the answer to a question over a table, as `chordwise ask --json` prints it.

        With `paths` only the documents there are read.

        Raises:
            UsageError: No column has what is asked about, several may, or a model is needed.
            ModelError: The model returned no usable plan.
        """
        listed = _listed(paths) if paths else []
        below = [spelling for path in listed for spelling in spellings(path)]
        context = self._reading()
        answer = asking.ask(context, question, table, model, paths=below, max_quotes=_MAX_QUOTES)
        return asking.members(answer)

    def _reading(self) -> ReadingContext:
        database = self._connection.database  # starts an embedded one
        return reading_context(self._connection.settings, database)

    def _scope(self, name: str | None, types: Sequence[AnalysisType | str]) -> scopes.Scope:
        settings = self._connection.settings
        with self._connection.database.read() as session:
            return scopes.find(session, settings, name, types=analysis_types(types))

    def _renewed(self, name: str | None, arguments: RefreshArguments) -> Target:
        _refuse_unknown(arguments, RefreshArguments.__annotations__)
        return refreshing.requested(self._reading(), name, arguments)

    def _existing_run(self, options: RunOptions) -> Run | None:
        """Return the run of this name; `None` if there is none, or its intake was interrupted."""
        if not options.name:
            return None
        with self._connection.database.read() as session:
            query = select(StoredRun, intakes.is_interrupted()).where(
                StoredRun.name == options.name
            )
            row = session.execute(query).one_or_none()
            if row is None:
                return None
            run, is_interrupted = row
            requested_options = to_json(effective_options(self._connection.settings, options))
            if changed := differing(requested_options, run.options):
                raise UsageError(
                    f"A run named “{run.name}” already exists, with other options "
                    f"({', '.join(changed)}).",
                    "Choose another run_name.",
                )
            if is_interrupted and run.status != RunStatus.CANCELLED:
                return None
            return Run(self._connection, run.id, run.name)

    def _take_in(self, submission: Submission) -> Run:
        context = self._connection.context
        with Reader(self._connection.settings.readers) as reader:
            found_files.take_in(
                context, submission, found_files.FileSource(reader, sys.stdin.buffer)
            )
        return Run(self._connection, submission.run_id, submission.name)


def _refuse_unknown(arguments: Mapping[str, object], names: Iterable[str]) -> None:
    for name in arguments.keys() - set(names):
        raise UsageError(f"There is no argument “{name}”.", f"Similar: {nearest(name, names)}.")


def _listed(paths: Paths) -> list[str]:
    items = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not items:
        raise UsageError("There is nothing to submit.", "Name a file, a folder or a pattern.")
    return [os.fspath(path) for path in items]
