"""Tests that the documents of the demo can be read and show the features of Chordwise."""

from __future__ import annotations

import pytest

from chordwise.domain import chunking
from chordwise.pipeline.asking.question import CHUNK_TOKENS
from chordwise.readers.reader import ReadDocument, Reader
from chordwise.settings import ReaderSettings
from tests.house.checkout import ROOT


@pytest.fixture(scope="module")
def documents() -> dict[str, ReadDocument]:
    """Return the documents that the readers make of the samples; all must be accepted."""
    with Reader(ReaderSettings()) as reader:
        outcomes = [reader.read(file) for file in sorted((ROOT / "samples").glob("*.*"))]
    read = {
        document.source: document for document in outcomes if isinstance(document, ReadDocument)
    }
    assert len(read) == len(outcomes)
    return read


def test_the_samples_have_every_readable_format_and_several_chunks(
    documents: dict[str, ReadDocument],
) -> None:
    """The demo shows both a synthesis and documents of one chunk."""
    endings = {source.rpartition(".")[2] for source in documents}
    counts = [
        len(chunking.split(document.content.text, CHUNK_TOKENS)) for document in documents.values()
    ]

    assert endings == {"txt", "md", "html", "pdf", "docx"}
    assert min(counts) == 1 < max(counts)
