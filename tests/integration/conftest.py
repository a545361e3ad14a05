"""What every test of the pipeline needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chordwise.settings import Settings
from tests.fakes.pipeline import close_all, with_settings


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Leave no connection open behind a test."""
    yield
    close_all()


@pytest.fixture
def small_chunks(settings: Settings) -> Settings:
    """Return settings under which the long text makes several chunks."""
    return with_settings(settings, "pipeline", chunk_tokens=800)
