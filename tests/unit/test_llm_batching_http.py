"""Tests of reading batch files line by line within a limit of memory."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ModelTransportError
from chordwise.llm import batching
from chordwise.llm.batching.openai import OpenAIBatches
from chordwise.llm.transport import JsonResponse, JsonTransport
from chordwise.settings import ModelSettings

MAX_BYTES = 1_000
FULL = Path("/dev/full")
GOOD = b'{"custom_id": "good"}\n'
MODEL = ModelSettings(provider="openai", model="model")


class OneFile(JsonTransport):
    """Downloads the same file from every address."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._content = pieces

    def download(
        self,
        url: str,  # noqa: ARG002 - as in JsonTransport
        headers: Mapping[str, str],  # noqa: ARG002 - as above
        target: BinaryIO,
        timeout_seconds: float,  # noqa: ARG002 - as above
    ) -> JsonResponse | None:
        target.writelines(self._content)
        return None


def lines_of(*pieces: bytes) -> list[JsonObject]:
    return list(OpenAIBatches(MODEL, SecretStr(""), OneFile(*pieces)).lines("/file"))


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_cannot_be_read_from_the_database_is_none(written: str) -> None:
    """Such a row would stop the exchange of all batches: in UTC it is out of range for Python."""
    assert batching.moment(written) is None
    assert batching.moment("2026-01-01T01:00:00+01:00") == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BODY_BYTES", MAX_BYTES)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(FULL.open, "r+b"))

    with pytest.raises(ModelTransportError, match="No space left on device") as refused:
        lines_of(GOOD)

    assert "TMPDIR" in refused.value.hint


def test_an_endless_line_is_skipped_with_limited_memory() -> None:
    piece = b"x" * 100_000
    tracemalloc.start()

    lines = lines_of(GOOD, *[piece] * 100, b"\n", GOOD, *[piece] * 100)

    _, max_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == [{"custom_id": "good"}] * 2
    assert max_bytes < 2_000_000  # of the ten million bytes of each endless line


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_line_of_the_maximum_length_is_read(end: bytes, more: int) -> None:
    line = json.dumps({"custom_id": "padded"}).encode().ljust(MAX_BYTES - len(end) + more) + end

    lines = lines_of(line, *([GOOD] if end else []))

    good = [{"custom_id": "good"}] if end else []
    assert lines == ([{"custom_id": "padded"}] if more <= 0 else []) + good
