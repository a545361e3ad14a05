"""The documents of the demo can be read, and show what Chordwise can do."""

from __future__ import annotations

import pytest

from chordwise.domain import chunking
from chordwise.readers.reading import ReadDocument, Reader
from chordwise.settings import PipelineSettings, ReaderSettings
from tests.house.checkout import ROOT


@pytest.fixture(scope="module")
def documents() -> dict[str, ReadDocument]:
    """Return what the readers make of every sample; all of them must become text."""
    with Reader(ReaderSettings()) as reader:
        found = [reader.read(file) for file in sorted((ROOT / "samples").glob("*.*"))]
    read = {document.source: document for document in found if isinstance(document, ReadDocument)}
    assert len(read) == len(found)
    return read


def test_the_samples_are_of_every_format_that_can_be_read(
    documents: dict[str, ReadDocument],
) -> None:
    endings = {source.rpartition(".")[2] for source in documents}

    assert endings == {"txt", "md", "html", "pdf", "docx"}


def test_one_sample_needs_several_chunks(documents: dict[str, ReadDocument]) -> None:
    """The demo shows a synthesis, and documents that stay whole."""
    budget = PipelineSettings().chunk_tokens

    counts = [len(chunking.split(each.content.text, budget)) for each in documents.values()]

    assert max(counts) > 1
    assert min(counts) == 1
