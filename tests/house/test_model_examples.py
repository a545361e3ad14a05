"""Tests that every block of docs/models.md can be copied, and that its model can be connected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise import settings
from chordwise.embedded import llama
from chordwise.llm.provider import connect
from tests.house.checkout import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"(?ms)^## ([^\n]+)\n(?:(?!^## ).)*?^```toml\n(.*?)^```", PAGE))
ALL_BLOCKS = re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE)


@pytest.mark.parametrize("block", ALL_BLOCKS)
def test_a_block_can_be_copied(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is valid, names the model that it describes, and has a well-formed address and key."""
    file = tmp_path / settings.FILE_NAME
    file.write_text(block, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHORDWISE_MODEL", raising=False)

    loaded = settings.load()

    for name in loaded.selected_names(loaded.model):
        model = loaded.model_named(name)
        if not llama.is_served_here(model):
            assert connect(model, SecretStr("sk-test")).profile.context_tokens


def test_every_kind_of_server_has_a_block() -> None:
    assert set(BLOCKS) >= {"OpenAI", "Azure", "Anthropic", "vLLM", "llama.cpp", "Ollama"}
