"""S01: documents with instructions to the model, and a model that obeys them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import jsonschema_rs
import pytest

from chordwise.embedded import llama
from chordwise.embedded.home import home_at
from chordwise.embedded.llama import EmbeddedLlama, LocalModel
from chordwise.embedded.stack_plan import python_path
from tests.fakes.configuration import CONCURRENCY
from tests.faults.allowance import SUCCEEDED, Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.injections import INJECTIONS, OBEYED, SCHEMA, answer_obediently
from tests.faults.provider import Treatment
from tests.faults.strange_answers import rewrites
from tests.integration.test_document_flags import BIPIA, REQUESTS, texts
from tests.peers import tiny_gguf
from tests.peers.answering_server import AnsweringHandler

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

_EVER = 100_000
_FACTS = """
SELECT substring(d.source FROM '[^/]+$'), f.path, f.value, f.quote, f.grounded
FROM facts AS f JOIN results AS r ON r.job_id = f.job_id
JOIN documents AS d ON d.id = r.document_id WHERE d.source ~ '(clean|planted)-'"""
_FLAGGED = """
SELECT count(*) FILTER (WHERE d.flags <> '[]'), count(*) FROM documents AS d
WHERE d.source LIKE '%{name}-%'"""
_OUTPUTS = "SELECT output -> 'data' FROM results"
_SEEN_ELSEWHERE = """
SELECT count(*) FROM results WHERE output::text ~ '{mark}|{word}' OR review_reason ~ '{mark}'"""
_MARK = "TEXT-[0-9a-f]{32}"


def facts(cluster: Cluster) -> Mapping[str, Mapping[str, tuple[object, ...]]]:
    """Return value, quote and groundedness of each fact of each file."""
    by_document: dict[str, dict[str, tuple[object, ...]]] = {}
    for name, path, *fact in cluster.rows(_FACTS):
        by_document.setdefault(str(name).partition(".")[0], {})[str(path)] = tuple(fact)
    return by_document


def changed(cluster: Cluster) -> Iterator[tuple[str, bool]]:
    """Yield the facts that differ from those of the clean twin, and whether this is visible.

    It is visible if the quote is not in the text, or is a part of the order itself.
    """
    documents = facts(cluster)
    for number, injection in enumerate(INJECTIONS):
        twin = documents[f"clean-{number:02}"]
        for path, (value, quote, grounded) in documents.get(f"planted-{number:02}", {}).items():
            if value != twin[path][0]:
                shows_itself = grounded is False or str(quote) in injection.order
                yield f"{number} {path}: {value}, {quote}", shows_itself


def share_flagged(cluster: Cluster, name: str) -> float:
    ((flagged, count),) = cluster.rows(_FLAGGED.format(name=name))
    assert isinstance(flagged, int)
    assert isinstance(count, int)
    return flagged / count


def test_facts_that_an_injection_changed_are_visible(
    cluster: Cluster, experiment: Experiment
) -> None:
    """S01: answers keep to the schema, and facts that an order has changed are visible."""
    experiment.begin("S01", f"{len(INJECTIONS)} documents with injected orders, a model that obeys")
    cluster.provider.treat(Treatment(answering=answer_obediently), times=_EVER)
    folder = cluster.folder / "documents"
    files = [
        injection.write(folder, number, is_clean=is_clean)
        for number, injection in enumerate(INJECTIONS)
        for is_clean in (True, False)
    ]
    (cluster.folder / "schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    cluster.start_both()
    options = ("--type", "extraction", "--schema", str(cluster.folder / "schema.json"))
    cluster.submit(*files, options=options)
    cluster.wait_until_finished(120)
    cluster.provider.forgive()
    experiment.fault_is_over()

    flagged, clean = share_flagged(cluster, "planted"), share_flagged(cluster, "clean")
    outputs = [data for (data,) in cluster.rows(_OUTPUTS)]
    changes = list(changed(cluster))
    leaks = cluster.count(_SEEN_ELSEWHERE.format(mark=_MARK, word=OBEYED))
    refused = cluster.count("SELECT count(*) FROM jobs WHERE status = 'failed'")
    experiment.finish(
        Allowance(ends=SUCCEEDED | {"failed", "partial"}, extra_calls=_EVER, ungrounded=_EVER),
        notes=f"{flagged:.0%} flagged, {refused} answers refused, {len(changes)} facts changed, "
        f"{sum(not shows for _, shows in changes)} of them grounded outside the order",
    )
    for data in outputs:
        jsonschema_rs.validate(SCHEMA, data)
    assert len(outputs) >= 1.5 * len(INJECTIONS)
    assert [what for what, shows_itself in changes if not shows_itself] == []
    assert leaks == 0
    assert flagged >= 0.8
    assert clean == 0


def obeying_in_form(content: str) -> str:
    """Return a valid summary with the words that the order demands."""
    return json.dumps({**json.loads(content), "main_topic": OBEYED, "conclusions": [OBEYED]})


@contextmanager
def local_model(folder: Path) -> Iterator[Treatment]:
    """Serve a model with random weights by llama.cpp, which answers the provider's requests."""
    pytest.importorskip("xllamacpp")
    home = home_at(folder / "llama")
    home.prepare()
    model = LocalModel(file=tiny_gguf.build(folder / "tiny.gguf"), slots=CONCURRENCY)
    log, environment = home.log("llama"), python_path()
    server = EmbeddedLlama(model, home.run, log=log, environment=environment)
    server.start()
    address = llama.server_address(home, str(model.file))
    assert address is not None
    url, key = address

    def relay(handler: AnsweringHandler, _: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        said = httpx.post(
            f"{url}/v1/chat/completions", content=handler.request_body, headers=headers, timeout=60
        )
        handler.reply(said.status_code, said.content)

    try:
        yield Treatment(answering=relay)
    finally:
        server.stop()


def planted_hosts(folder: Path, *, every: int) -> Mapping[Path, str]:
    """Write documents of BIPIA with an inserted request each; return their original texts."""
    hosts: dict[Path, str] = {}
    for number, text in enumerate(list(texts(BIPIA))[::every]):
        lines = text.split("\n")
        lines.insert((0, len(lines) // 2, len(lines))[number % 3], REQUESTS[number % len(REQUESTS)])
        path = folder / f"planted-{number}.txt"
        path.write_text("\n".join(lines), "utf-8")
        hosts[path] = text
    return hosts


@pytest.mark.corpus
@pytest.mark.skipif(not BIPIA.exists(), reason="the corpora are not here")
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("model", ["obedient", "local"])
def test_injections_in_real_documents_are_flagged(
    cluster: Cluster, experiment: Experiment, tmp_path: Path, model: str
) -> None:
    """S01: stored answers match the schema, and flagged documents need review."""
    every = 1 if model == "obedient" else 3
    hosts = planted_hosts(cluster.folder / "documents", every=every)
    files, what = list(hosts), f"{len(hosts)} documents of BIPIA with a request in each"
    if model == "local":
        folder = cluster.folder / "documents" / "own"
        folder.mkdir()
        files += [
            injection.write(folder, n, is_clean=False) for n, injection in enumerate(INJECTIONS)
        ]
        what += f" and {len(INJECTIONS)} with orders, answered by llama.cpp with random weights"
    experiment.begin("S01 BIPIA" if model == "obedient" else "S01 local", what)
    with ExitStack() as stack:
        if model == "local":
            cluster.provider.treat(stack.enter_context(local_model(tmp_path)), times=_EVER)
        else:
            for text in list(hosts.values())[1::2]:
                cluster.provider.treat(rewrites(lambda _: OBEYED), times=2, containing=text[:200])
            cluster.provider.treat(rewrites(obeying_in_form), times=_EVER)
        cluster.start_both()
        assert cluster.run("submit", *map(str, files), timeout=600).returncode == 0
        cluster.wait_until_finished(600)
    cluster.provider.forgive()
    experiment.fault_is_over()

    flagged = share_flagged(cluster, "planted")
    unseen = "SELECT count(*) FROM document_results WHERE flags <> '[]' AND NOT needs_review"
    unreviewed = cluster.count(unseen)
    stored = cluster.count("SELECT count(*) FROM results")
    experiment.finish(
        Allowance(ends=SUCCEEDED | {"failed", "partial"}, extra_calls=_EVER, ungrounded=_EVER),
        notes=f"{flagged:.0%} flagged, all of these need review; {stored} answers stored",
    )
    assert flagged >= 0.8
    assert unreviewed == 0
    assert cluster.count("SELECT count(*) FROM results WHERE output ->> 'main_topic' IS NULL") == 0
    assert cluster.count(_SEEN_ELSEWHERE.format(mark=_MARK, word=_MARK)) == 0
    assert stored > 0
