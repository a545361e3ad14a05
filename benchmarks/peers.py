"""Other programs that do the same work, each run by a Python that has it installed.

    PYTHON benchmarks/peers.py curator URL CALLS IN_FLIGHT

This file imports nothing of Chordwise, which that Python does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

NAMES = ("curator", "langextract", "docetl")
# The answer of the provider that each program expects.
CONTENT = {
    "curator": "A document.",
    "langextract": json.dumps({"extractions": [{"topic": "report"}]}),
    "docetl": json.dumps({"topic": "report"}),
}
_TEXT = "Document. " + "The report and a service were delivered late. " * 60


def curator(url: str, calls: int, in_flight: int) -> None:
    """Send the calls with bespokelabs-curator's online processor, which adds a trial call."""
    # The import reads these; the cache is in the temporary folder.
    os.environ.update(CURATOR_CACHE_DIR=str(Path.cwd()), TELEMETRY_ENABLED="false")
    from bespokelabs import curator as library  # noqa: PLC0415

    limits = {"max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9}
    backend = {**limits, "base_url": url, "max_concurrent_requests": in_flight}
    model = library.LLM(model_name="openai/gpt-4o-mini", backend="litellm", backend_params=backend)
    model([f"{number}. {_TEXT}" for number in range(calls)])


def langextract(url: str, calls: int, in_flight: int) -> None:
    """Extract from `calls` documents of one chunk each."""
    import langextract as library  # noqa: PLC0415
    from langextract.providers.openai import OpenAILanguageModel  # noqa: PLC0415

    extraction = library.data.Extraction(extraction_class="topic", extraction_text="report")
    example = library.data.ExampleData(text="The report.", extractions=[extraction])
    documents = [library.data.Document(text=f"{number}. {_TEXT}") for number in range(calls)]
    model = OpenAILanguageModel(
        model_id="gpt-4o-mini", api_key="none", base_url=url, max_workers=in_flight
    )
    answers = library.extract(
        text_or_documents=documents,
        prompt_description="Name the topic.",
        examples=[example],
        model=model,
        fence_output=False,
        use_schema_constraints=False,
        max_char_buffer=4000,
        max_workers=in_flight,
        batch_length=in_flight,
        show_progress=False,
    )
    for _ in answers:
        pass


def docetl(url: str, calls: int, in_flight: int) -> None:
    """Run a pipeline of one map operation over `calls` documents, without its cache."""
    os.environ.update(OPENAI_API_BASE=url, OPENAI_BASE_URL=url)
    from docetl.runner import DSLRunner  # noqa: PLC0415

    rows = [{"text": f"{number}. {_TEXT}"} for number in range(calls)]
    Path("rows.json").write_text(json.dumps(rows), "utf-8")
    operation = {
        "name": "topic",
        "type": "map",
        "prompt": "Name the topic. {{ input.text }}",
        "output": {"schema": {"topic": "string"}, "mode": "structured_output"},
        "bypass_cache": True,
    }
    step = {"name": "only", "input": "rows", "operations": ["topic"]}
    output = {"type": "file", "path": "out.json", "intermediate_dir": "intermediate"}
    pipeline = {
        "default_model": "gpt-4",
        "bypass_cache": True,
        "datasets": {"rows": {"type": "file", "path": "rows.json"}},
        "operations": [operation],
        "pipeline": {"steps": [step], "output": output},
    }
    DSLRunner(pipeline, max_threads=in_flight).load_run_save()


def main() -> None:
    """Make the calls in a temporary folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("in_flight", type=int)
    options = parser.parse_args()
    peer = {"curator": curator, "langextract": langextract, "docetl": docetl}[options.name]
    # Without the second, importing LiteLLM downloads a list of prices.
    os.environ.update(OPENAI_API_KEY="none", LITELLM_LOCAL_MODEL_COST_MAP="True")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        peer(options.url, options.calls, options.in_flight)


if __name__ == "__main__":
    main()
