"""What every error says beyond its sentence."""

from __future__ import annotations

import pickle

import pytest

from chordwise.errors import (
    ChordwiseError,
    InvalidAnswerError,
    ModelOverloadedError,
    ModelTransportError,
    ModelUnreachableError,
    RefusedError,
)


@pytest.mark.parametrize(
    "kind",
    [
        InvalidAnswerError,
        ModelOverloadedError,
        ModelTransportError,
        ModelUnreachableError,
        RefusedError,
    ],
)
def test_what_can_end_a_chunk_has_a_hint(kind: type[ChordwiseError]) -> None:
    """The usual hint stands where nothing better is known, also after a message's journey."""
    bare, hinted = kind("It failed."), kind("It failed.", "Do this.")

    assert bare.hint == kind.usual_hint != ""
    assert pickle.loads(pickle.dumps(hinted)).hint == "Do this."  # noqa: S301 - made here
