"""Files of a batch are read line by line, and a line is never held beyond its bound."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ModelTransportError
from chordwise.llm.batching import http
from chordwise.llm.batching.http import BatchHttp
from chordwise.llm.transport import JsonResponse, JsonTransport

MOST = 1_000
FULL = Path("/dev/full")
GOOD = b'{"custom_id": "good"}\n'


class OneFile(JsonTransport):
    """Downloads the same file from everywhere."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._content = pieces

    def download(
        self,
        url: str,  # noqa: ARG002 - the signature is that of what it stands for
        headers: Mapping[str, str],  # noqa: ARG002 - as above
        target: BinaryIO,
        timeout_seconds: float,  # noqa: ARG002 - as above
    ) -> JsonResponse | None:
        target.writelines(self._content)
        return None


def lines_of(*pieces: bytes) -> list[JsonObject]:
    reader = BatchHttp(
        base_url="http://127.0.0.1",
        headers={},
        key=SecretStr(""),
        label="a/model",
        codes={},
        phrases={},
        transport=OneFile(*pieces),
    )
    return list(reader.lines("/file"))


@pytest.fixture(autouse=True)
def _small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY_BYTES", MOST)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file that did not come: the batch is looked at again later."""
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(FULL.open, "r+b"))

    with pytest.raises(ModelTransportError, match="No space left on device") as refused:
        lines_of(GOOD)

    assert "TMPDIR" in refused.value.hint


def test_a_line_without_end_is_passed_over_and_never_held() -> None:
    """What stands before and after it is read; it takes no more memory than its bound."""
    piece = b"x" * 100_000
    tracemalloc.start()

    found = lines_of(GOOD, *[piece] * 100, b"\n", GOOD, *[piece] * 100)

    _, max_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [{"custom_id": "good"}] * 2
    assert max_bytes < 1_000_000


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_line_may_be_as_long_as_its_bound(end: bytes, more: int) -> None:
    """One byte more is too many, however much of it would be JSON."""
    line = json.dumps({"custom_id": "padded"}).encode().ljust(MOST - len(end) + more) + end

    found = lines_of(line, *([GOOD] if end else []))

    good = [{"custom_id": "good"}] if end else []
    assert found == ([{"custom_id": "padded"}] if more <= 0 else []) + good
