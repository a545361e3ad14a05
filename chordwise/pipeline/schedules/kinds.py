"""The kinds of schedules: to add one, a member of `ScheduleKind`, a function, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from chordwise.pipeline.learning.scheduled import evaluate, recalibrate
from chordwise.pipeline.schedules.analyses import analyze, reanalyze
from chordwise.pipeline.schedules.exports import export
from chordwise.pipeline.schedules.pruning import prune
from chordwise.pipeline.schedules.reports import report
from chordwise.pipeline.schedules.work import Kind
from chordwise.settings.schedules import ScheduleKind

KINDS: Mapping[ScheduleKind, Kind] = {
    ScheduleKind.ANALYZE: analyze,
    ScheduleKind.REANALYZE: reanalyze,
    ScheduleKind.PRUNE: prune,
    ScheduleKind.REPORT: report,
    ScheduleKind.EXPORT: export,
    ScheduleKind.EVALUATE: evaluate,
    ScheduleKind.RECALIBRATE: recalibrate,
}
