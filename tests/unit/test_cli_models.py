"""Tests of `chordwise models fit`, which estimates memory, throughput and cost."""

from __future__ import annotations

import json

from chordwise.errors import ExitCode
from tests.fakes.commands import output_of

LLAMA = ("models", "fit", "8e9", "--context", "8192", "--parallel", "16")


def test_the_result_and_every_assumption_are_shown() -> None:
    shown = output_of(*LLAMA, "--usd-per-hour", "2").out

    assert "128 KiB" in shown
    assert "16.0 GB" in shown
    assert "Cost of 1,000 documents" in shown
    assert "those of Llama-3-8B" in shown
    assert "NVIDIA A100" in shown


def test_json_output_is_in_bytes_and_seconds() -> None:
    report = json.loads(output_of(*LLAMA, "--json").out)

    assert report["schema_version"] == 1
    assert report["sizing"]["kv_bytes_per_token"] == 131_072
    assert report["sizing"]["usd_per_thousand_documents"] is None
    assert report["max_parallel"] is None
    assert len(report["assumptions"]) >= 5


def test_given_values_are_not_assumed() -> None:
    """A complete model shape and machine leave no assumptions about them."""
    options = "--layers 48 --kv-heads 4 --head-size 128 --bandwidth 1008 --compute 165 --memory 24"
    shown = output_of(*LLAMA, *options.split(), "--bits", "4").out

    assert "96 KiB" in shown
    assert "not given" not in shown
    assert "In 24.0 GB" in shown
    assert "concurrent request" in shown


def test_a_prompt_and_answer_that_exceed_the_context_are_rejected() -> None:
    printed = output_of(
        *LLAMA, "--prompt-tokens", "8000", "--output-tokens", "400", code=ExitCode.USAGE
    ).err

    assert "--context" in printed
