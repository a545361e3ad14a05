"""Exports a trace for each of a share of the documents over OTLP, from what PostgreSQL has of them.

The processes that analyze take no part. The id of a trace is that of the intake, so one that is
exported twice is the same. This module needs the extra `otel`.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from chordwise.errors import ConfigurationError
from chordwise.relations.relation import Row, rows
from chordwise.settings.sections import TraceSettings
from chordwise.storage.database import Database, driver

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as error:
    raise ConfigurationError(
        "traces.endpoint needs OpenTelemetry, which is not installed.",
        'Install it with: pip install "chordwise[otel]"',
    ) from error

_DOCUMENTS, _SPANS = 20, 500
# The last 32 bits of an id are random. A late commit may add an end that is some seconds earlier.
ENDED = """
SELECT j.intake_id, max(j.finished_at) AS ended_at
FROM jobs AS j
WHERE
    j.finished_at > coalesce(%(since)s, statement_timestamp() - interval '1 minute')
    AND j.finished_at <= statement_timestamp() - interval '5 seconds'
    AND ('x' || right(j.intake_id::text, 8))::bit(32)::bigint < %(share)s * 4294967296
    AND NOT EXISTS (
        SELECT FROM jobs AS o WHERE o.intake_id = j.intake_id AND o.finished_at IS NULL
    )
GROUP BY j.intake_id
ORDER BY ended_at
LIMIT %(limit)s"""
_TRACES = """
WITH job AS (SELECT * FROM jobs WHERE intake_id = ANY(%(ids)s)),

document AS (
    SELECT
        i.id, i.run_id, min(j.created_at) AS read_at, max(j.finished_at) AS ended_at,
        least(i.created_at, min(f.created_at)) AS started_at
    FROM job AS j
    INNER JOIN intakes AS i ON i.id = j.intake_id
    LEFT JOIN inbox_intakes AS x ON x.intake_id = i.id
    LEFT JOIN inbox_files AS f ON f.id = x.inbox_file_id
    GROUP BY i.id
),

call AS (
    SELECT
        j.intake_id, m.*, m.language_model AND NOT m.cache_hit AS is_asked,
        regexp_replace(m.model, CASE m.provider WHEN 'local' THEN '.*/' ELSE '^$' END, '') AS name
    FROM job AS j INNER JOIN model_calls AS m ON m.job_id = j.id
)

SELECT
    id AS trace, id AS span, NULL::uuid AS parent, 'document' AS name, false AS is_client,
    started_at, ended_at, NULL AS error, jsonb_build_object('chordwise.run', run_id) AS attributes
FROM document
UNION ALL
SELECT id, NULL, id, 'read', false, started_at, read_at, NULL, '{}' FROM document
UNION ALL
SELECT
    intake_id, id, intake_id, analysis_type, false, created_at, finished_at,
    CASE WHEN status <> 'succeeded' THEN coalesce(error_code, status) END,
    jsonb_build_object('chordwise.job', id, 'chordwise.status', status)
FROM job
UNION ALL
SELECT
    j.intake_id, c.id, j.id, 'chunk', false, c.started_at, c.finished_at, c.error_code,
    jsonb_build_object('chordwise.position', c.position, 'chordwise.attempts', c.attempts)
FROM job AS j INNER JOIN chunks AS c ON c.job_id = j.id
WHERE c.started_at IS NOT NULL AND c.finished_at IS NOT NULL
UNION ALL
SELECT
    intake_id, id, coalesce(chunk_id, job_id),
    CASE WHEN is_asked THEN 'chat ' WHEN cache_hit THEN 'cached ' ELSE 'extract ' END || name,
    is_asked, started_at, coalesce(finished_at, started_at),
    CASE WHEN finished_at IS NULL THEN 'worker_lost' ELSE error_code END,
    jsonb_build_object('chordwise.stage', stage, 'chordwise.attempt', attempt)
    || CASE WHEN is_asked THEN jsonb_strip_nulls(jsonb_build_object(
        'gen_ai.operation.name', 'chat',
        'gen_ai.provider.name', provider,
        'gen_ai.request.model', name,
        'gen_ai.output.type', 'json',
        'gen_ai.response.id', response_id,
        'gen_ai.response.finish_reasons', to_jsonb(array_remove(ARRAY[finish_reason], NULL)),
        'gen_ai.usage.input_tokens', input_tokens,
        'gen_ai.usage.output_tokens', output_tokens,
        'gen_ai.usage.cache_read.input_tokens', cached_input_tokens,
        'gen_ai.usage.cache_creation.input_tokens', cache_write_tokens,
        'chordwise.cost_usd', cost_usd
    )) ELSE '{}' END
FROM call"""


class DocumentTraces:
    """Exports the documents that end while this process leads, and in the minute before."""

    def __init__(self, settings: TraceSettings, database: Database) -> None:
        self._share = settings.share
        self._database = database
        self._exporter = OTLPSpanExporter(f"{settings.endpoint.rstrip('/')}/v1/traces")
        self._since: datetime | None = None

    def export(self) -> bool:
        """Export the next documents that have ended; return whether there may be more.

        If the collector does not accept them, they are exported again later.

        Raises:
            ServiceUnavailableError: The database is unavailable.
        """
        values = {"since": self._since, "share": self._share, "limit": _DOCUMENTS}
        with self._database.read() as session:
            ended = rows(driver(session), ENDED, values)
            if not ended:
                return False
            ids = [row["intake_id"] for row in ended]
            spans = [_span(row) for row in rows(driver(session), _TRACES, {"ids": ids})]
        for first in range(0, len(spans), _SPANS):
            outcome = self._exporter.export(spans[first : first + _SPANS])
            if outcome is not SpanExportResult.SUCCESS:
                return False
        self._since = ended[-1]["ended_at"]
        return len(ended) == _DOCUMENTS


def _span(row: Row) -> ReadableSpan:
    error = {"error.type": row["error"]} if row["error"] else {}
    return ReadableSpan(
        name=row["name"],
        context=_context(row["trace"], row["span"]),
        parent=_context(row["trace"], row["parent"]) if row["parent"] else None,
        resource=Resource.create({"service.name": "chordwise"}),
        attributes={**row["attributes"], **error},
        kind=SpanKind.CLIENT if row["is_client"] else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if error else StatusCode.UNSET),
        start_time=round(row["started_at"].timestamp() * 1e6) * 1000,
        end_time=round(max(row["ended_at"], row["started_at"]).timestamp() * 1e6) * 1000,
    )


def _context(trace: UUID, span: UUID | None) -> SpanContext:
    """Return the ids of a span; the one of reading has no row, and an id beside its document's."""
    low_bits = (trace.int ^ 1 if span is None else span.int) % 2**64
    return SpanContext(trace.int, low_bits, is_remote=False, trace_flags=TraceFlags(1))
