"""Tests of the hints of errors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from chordwise.errors import ChordwiseError, ModelError


def below(kind: type[ChordwiseError]) -> Iterator[type[ChordwiseError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from below(subclass)


@pytest.mark.parametrize("kind", [*below(ModelError)])
def test_errors_that_can_end_a_chunk_have_a_hint(kind: type[ChordwiseError]) -> None:
    bare, hinted = kind("It failed."), kind("It failed.", "Do this.")

    assert bare.hint == kind.usual_hint != ""
    assert pickle.loads(pickle.dumps(hinted)).hint == "Do this."  # noqa: S301 - made here
