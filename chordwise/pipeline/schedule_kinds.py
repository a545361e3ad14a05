"""The kinds of schedules: to add one, a member of `ScheduleKind`, a function, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from chordwise.pipeline.learning.scheduled import evaluate, recalibrate
from chordwise.pipeline.pruning import prune
from chordwise.pipeline.scheduled_analyses import analyze, reanalyze
from chordwise.pipeline.scheduled_exports import export
from chordwise.pipeline.scheduled_reports import report
from chordwise.pipeline.scheduled_work import Kind
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
