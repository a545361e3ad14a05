"""Insight: volume, speed, quality and cost over time, as series of numbers to plot.

Every number comes from a view of docs/sql-cookbook.md.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from sqlalchemy import Result, text
from sqlalchemy.orm import Session

from chordwise.storage import clock

Cell: TypeAlias = str | int | float | Decimal | dt.date | None


class FigureUnit(StrEnum):
    """The unit of a figure's numbers, which determines their format."""

    COUNT = "count"
    SECONDS = "seconds"
    USD = "usd"
    SHARE = "share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure: a statement over documented views, and the columns to plot.

    There is a series for each of `values` and each combination of `names`, over `x`: days, unless
    the figure `is_curve`. The statement takes `since`, a day. The table shows `columns`, or all
    columns if there are none. On a day without a row, a count is 0.
    """

    key: str
    title: str
    note: str
    unit: FigureUnit
    query: str
    names: Sequence[str]
    values: Mapping[str, str]
    columns: Sequence[str] = ()
    x: str = "day"
    is_curve: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure with its numbers: the rows as a table, and the series along `x`.

    `x` holds seconds since 1970 for days; a series has `None` where a number is missing.
    """

    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    x: Sequence[float]
    series: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


# Each statement is executed once, for all figures over it.
_RESULTS = """
    SELECT day, analysis_type, results, partial, needing_review, mean_quality, mean_confidence,
        mean_coverage
    FROM results_by_day WHERE day >= :since ORDER BY day, analysis_type"""
_QUALITY = """
    SELECT day, provider, model, calls, median_latency_ms / 1000 AS median_seconds,
        p95_latency_ms / 1000 AS p95_seconds, refusals, errors, invalid_answers, refusal_share,
        round(invalid_answers::numeric / calls, 4) AS invalid_share
    FROM model_quality_by_day WHERE day >= :since ORDER BY day, provider, model"""
_COSTS = """
    SELECT day, provider, model, calls, cache_hits, input_tokens, output_tokens, cost_usd,
        unpriced_calls
    FROM model_costs_by_day WHERE day >= :since ORDER BY day, provider, model"""
FIGURES = (
    Figure(
        key="throughput",
        title="Throughput",
        note="Results by day and analysis type.",
        unit=FigureUnit.COUNT,
        query=_RESULTS,
        columns=("day", "analysis_type", "results", "partial", "needing_review"),
        names=("analysis_type",),
        values={"results": ""},
    ),
    Figure(
        key="latency",
        title="Latency",
        note="Median and 95th percentile of the time that a call took, by model.",
        unit=FigureUnit.SECONDS,
        query=_QUALITY,
        columns=("day", "provider", "model", "calls", "median_seconds", "p95_seconds"),
        names=("provider", "model"),
        values={"median_seconds": "median", "p95_seconds": "95 %"},
    ),
    Figure(
        key="tokens",
        title="Tokens",
        note="Input and output tokens of the models.",
        unit=FigureUnit.COUNT,
        query=_COSTS,
        columns=(
            *("day", "provider", "model", "calls", "cache_hits"),
            *("input_tokens", "output_tokens"),
        ),
        names=("provider", "model"),
        values={"input_tokens": "in", "output_tokens": "out"},
    ),
    Figure(
        key="cost",
        title="Cost",
        note="Dollars by model; calls whose price is unknown are counted as unpriced.",
        unit=FigureUnit.USD,
        query=_COSTS,
        columns=("day", "provider", "model", "cost_usd", "unpriced_calls"),
        names=("provider", "model"),
        values={"cost_usd": ""},
    ),
    Figure(
        key="savings",
        title="Savings",
        note="Dollars that the cache and the routing saved.",
        unit=FigureUnit.USD,
        query="""
            SELECT day, cache_hits, cache_saved_usd, routed_questions, routing_saved_usd
            FROM savings_by_day WHERE day >= :since ORDER BY day""",
        names=(),
        values={"cache_saved_usd": "cache", "routing_saved_usd": "routing"},
    ),
    Figure(
        key="refusals",
        title="Refusals and invalid answers",
        note="Shares of all calls, by model.",
        unit=FigureUnit.SHARE,
        query=_QUALITY,
        columns=(
            *("day", "provider", "model", "calls", "refusals", "errors", "invalid_answers"),
            *("refusal_share", "invalid_share"),
        ),
        names=("provider", "model"),
        values={"refusal_share": "refused", "invalid_share": "invalid"},
    ),
    Figure(
        key="quality",
        title="Quality",
        note="Mean quality and confidence of results, by analysis type.",
        unit=FigureUnit.SHARE,
        query=_RESULTS,
        columns=(
            *("day", "analysis_type", "results"),
            *("mean_quality", "mean_confidence", "mean_coverage"),
        ),
        names=("analysis_type",),
        values={"mean_quality": "quality", "mean_confidence": "confidence"},
    ),
    Figure(
        key="evaluations",
        title="Evaluations",
        note="Share of right results at the last evaluation of each day, by profile or run.",
        unit=FigureUnit.SHARE,
        query="""
            SELECT DISTINCT ON (day, evaluated, analysis_type)
                CAST(evaluated_at AT TIME ZONE 'UTC' AS date) AS day,
                coalesce(nullif(profile, ''), run, 'all') AS evaluated, analysis_type,
                judged, value AS accuracy, low, high
            FROM evaluation_history
            WHERE is_whole AND metric = 'accuracy'
                AND CAST(evaluated_at AT TIME ZONE 'UTC' AS date) >= :since
            ORDER BY day, evaluated, analysis_type, evaluated_at DESC""",
        names=("evaluated", "analysis_type"),
        values={"accuracy": ""},
    ),
    Figure(
        key="failures",
        title="Failures",
        note="Failures, by the kind of the failed item and the error code.",
        unit=FigureUnit.COUNT,
        query="""
            SELECT day, what, error_code, failures
            FROM failures_by_day WHERE day >= :since ORDER BY day, what, error_code""",
        names=("what", "error_code"),
        values={"failures": ""},
    ),
    Figure(
        key="reliability",
        title="Reliability",
        note="Share of right values by claimed confidence; on the diagonal, the two are equal. "
        "All judgments count, whenever they were made.",
        unit=FigureUnit.SHARE,
        query="""
            SELECT analysis_type, part, provider, model, claimed_from, claims, mean_claimed,
                share_right
            FROM reliability_curve WHERE CAST(:since AS date) IS NOT NULL
            ORDER BY analysis_type, part, provider, model, claimed_from""",
        names=("analysis_type", "part", "model"),
        values={"share_right": ""},
        x="mean_claimed",
        is_curve=True,
    ),
)
_MAX_SERIES = 8
# The columns that are summed, by the key of their figure.
_TOTALS = {
    "throughput": ("results", "needing_review"),
    "tokens": ("calls", "input_tokens", "output_tokens"),
    "cost": ("cost_usd", "unpriced_calls"),
    "savings": ("cache_saved_usd", "routing_saved_usd"),
    "failures": ("failures",),
}


def figures_sharing_query(key: str) -> Sequence[Figure]:
    """Return the figures that share one execution of a statement, led by the one with this key.

    Returns none if this figure is not the first of `FIGURES` with its statement.
    """
    leading = next((figure for figure in FIGURES if figure.key == key), None)
    alike = [figure for figure in FIGURES if leading and figure.query == leading.query]
    return alike if alike and alike[0] is leading else []


def plots(session: Session, days: int, figures: Sequence[Figure] = FIGURES) -> Sequence[Plot]:
    """Return the figures with their numbers for the last days (UTC), including today."""
    today = clock.read(session).astimezone(dt.UTC).date()
    span = [today - dt.timedelta(days=back) for back in reversed(range(days))]
    results = {
        query: session.execute(text(query), {"since": span[0]}).freeze()
        for query in dict.fromkeys(figure.query for figure in figures)
    }
    return [_plot(figure, results[figure.query](), span) for figure in figures]


def totals(all_plots: Sequence[Plot]) -> dict[str, float]:
    """Return the sums over these plots, by name; figures that are absent are omitted."""
    sums: dict[str, float] = {}
    for plot in all_plots:
        for column in _TOTALS.get(plot.figure.key, ()):
            place = plot.columns.index(column)
            added = sum(_number(row[place]) or 0.0 for row in plot.rows)
            sums[column] = added if column.endswith("_usd") else round(added)
    return sums


def _plot(figure: Figure, result: Result[*tuple[object, ...]], days: Sequence[dt.date]) -> Plot:
    columns = figure.columns or list(result.keys())
    records = [dict(row) for row in result.mappings()]
    rows = [tuple(record[name] for name in columns) for record in records]
    if figure.is_curve:
        places = sorted({0.0, 1.0, *(_number(record[figure.x]) or 0.0 for record in records)})
    else:
        places = [_seconds(day) for day in days]
    return Plot(
        figure=figure,
        columns=columns,
        rows=rows,
        x=places,
        series=_series(figure, records, places),
    )


def _series(
    figure: Figure, records: Sequence[Mapping[str, Cell]], places: Sequence[float]
) -> dict[str, list[float | None]]:
    """Return the series by name; only the largest if there are too many."""
    empty = 0.0 if figure.unit is FigureUnit.COUNT else None
    index = {place: number for number, place in enumerate(places)}
    curves: dict[str, list[float | None]] = {}
    for record in records:
        x = record[figure.x]
        place = index[_seconds(x) if isinstance(x, dt.date) else _number(x) or 0.0]
        of = " ".join(str(record[name]) for name in figure.names)
        for column, label in figure.values.items():
            number = _number(record[column])
            name = ", ".join(part for part in (of, label) if part)
            series = curves.setdefault(name, [empty] * len(places))
            if number is not None:
                series[place] = (series[place] or 0.0) + number if empty == 0.0 else number
    there = {name: s for name, s in curves.items() if any(number is not None for number in s)}
    largest = sorted(there, key=lambda name: -sum(number or 0.0 for number in there[name]))
    return {name: there[name] for name in largest[:_MAX_SERIES]}


def _number(value: Cell) -> float | None:
    return float(value) if isinstance(value, int | float | Decimal) else None


def _seconds(day: dt.date) -> float:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()
