"""Experiments: the compared variants of a profile, and their documents."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import JSON, ForeignKey, Index, exists, func, or_, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.experiments import GuardrailOutcomes
from chordwise.domain.learning.statistics import Moments
from chordwise.domain.states import RunStatus
from chordwise.storage import budgets, clock
from chordwise.storage.budgets import Budget
from chordwise.storage.record import CreatedAt, Identity, Record, in_ids, update_rows
from chordwise.storage.runs import Run

_WAIT = 0.02


class Experiment(Record):
    """A comparison of variants of a profile by an `outcome`.

    A variant is stopped if, except with the probability `risk`, it has fewer valid answers by more
    than `max_invalid`, or exceeds the control by more than the fractions `max_cost` and
    `max_latency`.
    """

    __tablename__ = "experiments"
    __table_args__ = (
        Index(
            "ux_experiments_running",
            "profile",
            unique=True,
            postgresql_where="concluded_at IS NULL",
        ),
    )

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True)
    profile: Mapped[str]
    outcome: Mapped[str]
    control: Mapped[JsonObject] = mapped_column(JSON)
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"), index=True)
    share: Mapped[float]
    paired: Mapped[float]
    risk: Mapped[float]
    max_invalid: Mapped[float]
    max_cost: Mapped[float]
    max_latency: Mapped[float]
    promoted: Mapped[str | None]
    conclusion: Mapped[JsonObject | None]
    created_at: Mapped[CreatedAt]
    checked_at: Mapped[datetime | None]
    concluded_at: Mapped[datetime | None]


class ExperimentVariant(Record):
    """A variant: its `changes` to the entries of the profile, and the resulting `options`."""

    __tablename__ = "experiment_variants"

    experiment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("experiments.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    changes: Mapped[JsonObject]
    options: Mapped[JsonObject] = mapped_column(JSON)
    stopped_at: Mapped[datetime | None]
    stopped_because: Mapped[str | None]


class ExperimentDocument(Record):
    """The variant that answers a document, by its intake; a `paired` document has several."""

    __tablename__ = "experiment_documents"
    __table_args__ = (
        Index("ix_experiment_documents_experiment_id", "experiment_id", "document_id"),
    )

    intake_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("intakes.id"), primary_key=True)
    experiment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("experiments.id"))
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"))
    variant: Mapped[str]
    paired: Mapped[bool]


def named(session: Session, name: str) -> Experiment | None:
    """Return the experiment with this name, or `None`."""
    return session.scalars(select(Experiment).where(Experiment.name == name)).one_or_none()


def running(session: Session) -> Sequence[Experiment]:
    """Return the experiments that are not concluded."""
    return session.scalars(select(Experiment).where(Experiment.concluded_at.is_(None))).all()


def variants(session: Session, experiment_id: uuid.UUID) -> Sequence[ExperimentVariant]:
    """Return the variants of an experiment in their order."""
    return session.scalars(
        select(ExperimentVariant)
        .where(ExperimentVariant.experiment_id == experiment_id)
        .order_by(ExperimentVariant.position)
    ).all()


def documents_in(
    session: Session, experiment_id: uuid.UUID, document_ids: Collection[uuid.UUID]
) -> set[uuid.UUID]:
    """Return those of the documents that already belong to the experiment."""
    return set(
        session.scalars(
            select(ExperimentDocument.document_id).where(
                ExperimentDocument.experiment_id == experiment_id,
                in_ids(ExperimentDocument.document_id, document_ids),
            )
        )
    )


def open_pairs(session: Session, experiment: Experiment, count: int) -> bool:
    """Reopen the run of the additional answers for `count` more, unless it is over.

    Return false if it is cancelled or pruned, or if its budget is spent.
    """
    is_spent = exists().where(
        Budget.scope == budgets.scope_of_run(experiment.run_id or uuid.UUID(int=0)),
        Budget.spent_usd + Budget.reserved_usd >= Budget.cap_usd,
    )
    is_open = (Run.id == experiment.run_id) & (Run.status != RunStatus.CANCELLED) & ~is_spent
    found_count = func.coalesce(Run.found_count, 0) + count
    values = {"status": RunStatus.OPEN, "finished_at": None, "found_count": found_count}
    return update_rows(session, Run, is_open, **values)


def claim_check(session: Session, experiment_id: uuid.UUID, interval: timedelta) -> bool:
    """Return whether to check the guardrails now, and block further checks for an interval.

    A check sums up all answers: with an interval it also waits for a fiftieth of the time since the
    experiment was created.
    """
    now = clock.database_now()
    since = now - (now - Experiment.created_at) * _WAIT if interval else now
    is_due = or_(
        Experiment.checked_at.is_(None), Experiment.checked_at < func.least(now - interval, since)
    )
    is_running = (Experiment.id == experiment_id) & Experiment.concluded_at.is_(None)
    return update_rows(session, Experiment, is_running, is_due, checked_at=now)


def stop(session: Session, experiment_id: uuid.UUID, variant: str, because: str) -> bool:
    """Stop a variant; return false if it was already stopped."""
    return update_rows(
        session,
        ExperimentVariant,
        ExperimentVariant.experiment_id == experiment_id,
        ExperimentVariant.name == variant,
        ExperimentVariant.stopped_at.is_(None),
        stopped_at=clock.database_now(),
        stopped_because=because,
    )


_GUARDED = text("""
    WITH answers AS (
        SELECT variant, document_id, avg(valid::integer)::double precision AS valid,
            CASE WHEN bool_and(cost_usd IS NOT NULL) THEN sum(cost_usd)::double precision END
                AS cost,
            CASE WHEN bool_and(latency_ms IS NOT NULL) THEN sum(latency_ms) / 1000.0::float8 END
                AS latency
        FROM experiment_answers WHERE experiment_id = :id
        GROUP BY variant, document_id
        HAVING bool_and(valid IS NOT NULL AND finished_at IS NOT NULL)
    ), outcomes AS (
        SELECT variant, document_id, outcome, value, allowed
        FROM answers CROSS JOIN LATERAL (VALUES
            ('valid', valid, NULL), ('cost', cost, 1 + CAST(:max_cost AS double precision)),
            ('latency', latency, 1 + CAST(:max_latency AS double precision))
        ) AS each (outcome, value, allowed)
        WHERE value IS NOT NULL
    ), compared AS (
        SELECT v.variant, v.outcome, v.value,
            CASE WHEN v.allowed IS NOT NULL THEN v.value - v.allowed * c.value
                WHEN c.value IS NOT NULL THEN greatest(v.value - c.value, 0) END AS gain,
            CASE WHEN c.value IS NOT NULL THEN greatest(c.value - v.value, 0) END AS loss
        FROM outcomes v LEFT JOIN outcomes c ON c.document_id = v.document_id
            AND c.outcome = v.outcome AND c.variant = :control AND v.variant <> :control
    )
    SELECT variant, outcome, count(*) AS documents, avg(value) AS mean,
        var_pop(value) AS variance, count(gain) AS pairs, coalesce(avg(gain), 0) AS gain,
        coalesce(var_pop(gain), 0) AS gain_variance, coalesce(avg(loss), 0) AS loss
    FROM compared GROUP BY variant, outcome""")


def guarded(
    session: Session, experiment: Experiment, control: str
) -> Mapping[tuple[str, str], GuardrailOutcomes]:
    """Return what guardrails compare, by variant and outcome; the control must have the outcome."""
    bounds = {"max_cost": experiment.max_cost, "max_latency": experiment.max_latency}
    rows = session.execute(_GUARDED, {"id": experiment.id, "control": control, **bounds}).all()
    means = {
        (row.variant, row.outcome): Moments(
            count=row.documents, mean=row.mean, variance=row.variance
        )
        for row in rows
    }
    return {
        (row.variant, row.outcome): GuardrailOutcomes(
            control=means[control, row.outcome],
            variant=means[row.variant, row.outcome],
            gains=Moments(count=row.pairs, mean=row.gain, variance=row.gain_variance),
            losses=Moments(count=row.pairs, mean=row.loss),
        )
        for row in rows
        if (control, row.outcome) in means
    }
