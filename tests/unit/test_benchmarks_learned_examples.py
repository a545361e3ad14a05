"""Tests of the measurement of corrections on a corpus whose labels only the examples define."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import learned_examples


def test_examples_in_the_prompt_improve_the_labels(tmp_path: Path) -> None:
    rows = [
        {"text": f"Note {number}: {words} and more.", "label": label}
        for number in range(30)
        for words, label in (("boats leave the harbour", "alpha"), ("cows eat the grass", "beta"))
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "labels.jsonl").write_text(lines, "utf-8")

    documents = learned_examples.documents_in(tmp_path)
    without, with_some = learned_examples.measured("notes", documents, (0, 20))

    assert without.share.count == with_some.share.count == len(rows)
    assert without.share.value < 0.9
    assert with_some.share.value > 0.9
    assert with_some.prompt_tokens > without.prompt_tokens
    assert "| `notes` | 20 | 60 | 1.00 | 0.94 to 1.00 |" in learned_examples.table([with_some])
