"""Tests of `chordwise models fit`, which estimates memory, throughput and cost."""

from __future__ import annotations

import json

import pytest

from chordwise.errors import ExitCode
from tests.fakes.commands import output_of

LLAMA = ("models", "fit", "8e9", "--context", "8192", "--parallel", "16")


@pytest.mark.parametrize(
    ("options", "shown", "hidden"),
    [
        (
            "--usd-per-hour 2",
            ["128 KiB", "4.0 GB", "Cost of 1,000 documents", "Llama-3-8B", "NVIDIA A100"],
            [],
        ),
        # A complete model shape and machine leave no assumptions about them.
        (
            "--layers 48 --kv-heads 4 --head-size 128 --bandwidth 1008 --compute 165 --memory 24",
            ["96 KiB", "In 24.0 GB", "concurrent request"],
            ["not given"],
        ),
    ],
)
def test_the_result_and_every_assumption_are_shown(
    options: str, shown: list[str], hidden: list[str]
) -> None:
    printed = output_of(*LLAMA, *options.split(), "--bits", "4").out

    assert [part for part in shown if part not in printed] == []
    assert [part for part in hidden if part in printed] == []
    too_many = ("--prompt-tokens", "8000", "--output-tokens", "400")
    assert "--context" in output_of(*LLAMA, *too_many, code=ExitCode.USAGE).err


def test_json_output_is_in_bytes_and_seconds() -> None:
    report = json.loads(output_of(*LLAMA, "--json").out)

    assert report["schema_version"] == 1
    assert report["sizing"]["kv_bytes_per_token"] == 131_072
    assert report["sizing"]["usd_per_thousand_documents"] is None
    assert report["max_parallel"] is None
    assert len(report["assumptions"]) >= 5
