"""Many cases in one run: a document for each, and its calls in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.faults.provider import Treatment

_MODEL = """
[models.{name}]
provider = "openai"
model = "{name}"
base_url = "{base_url}"
timeout_seconds = {seconds}
{more}
"""

# Contains no number, so that a quote of its beginning consists of whole words.
_SAYING = "Case {name}. It is told apart from all the other cases by its name at the beginning."

_CALLS = """
SELECT substring(d.text FROM '^Case ([^.]+)[.]'),
    array_agg(coalesce(c.error_code, CASE WHEN c.valid THEN 'valid' ELSE 'invalid' END)
        ORDER BY c.started_at)
FROM model_calls AS c JOIN jobs AS j ON j.id = c.job_id JOIN documents AS d ON d.id = j.document_id
WHERE d.text LIKE 'Case %' GROUP BY 1"""

_ENDS = """
SELECT substring(d.text FROM '^Case ([^.]+)[.]'), j.status, j.error_code, j.error_message, j.hint
FROM jobs AS j JOIN documents AS d ON d.id = j.document_id WHERE d.text LIKE 'Case %'"""


def add_model(
    cluster: Cluster, name: str, base_url: str = "", *, seconds: int = 20, more: str = ""
) -> None:
    """Add a model to the configuration, before processes start."""
    address = base_url or f"http://127.0.0.1:{cluster.to_provider.port}/v1"
    with (cluster.folder / "chordwise.toml").open("a", encoding="utf-8") as file:
        file.write(_MODEL.format(name=name, base_url=address, seconds=seconds, more=more))


def write_cases(cluster: Cluster, cases: Mapping[str, Treatment], *, times: int = 1) -> list[Path]:
    """Write a document of one chunk for each case; its next `times` requests get the treatment."""
    for name, treatment in cases.items():
        cluster.provider.treat(treatment, times=times, containing=f"Case {name}.")
    return [cluster.documents.write(chunks=1, saying=saying(name)) for name in cases]


def saying(name: str) -> str:
    """Return the first sentence of the document of a case."""
    return _SAYING.format(name=name)


def calls(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Return the outcomes of each case's calls in order: an error code, or the validity."""
    rows = cluster.rows(_CALLS)
    return {str(name): tuple(map(str, codes)) for name, codes in rows if isinstance(codes, list)}


def ends(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Return status, error code, message and hint of the job of each case."""
    return {
        str(name): tuple(str(value or "") for value in values)
        for name, *values in cluster.rows(_ENDS)
    }
