"""Tests of the segments of a marked text: they cover the text and have its marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.marked_text import (
    MarkedSpan,
    Segment,
    segments,
    sought_in,
    window_of,
    words_at,
)

PLACES = st.integers(-3, 40)
SPANS = st.lists(
    st.builds(
        lambda start, length, mark: MarkedSpan(
            start_char=start, end_char=start + length, mark=mark
        ),
        PLACES,
        st.integers(0, 20),
        st.sampled_from("abc"),
    ),
    max_size=6,
)


@given(st.text(max_size=35), st.tuples(PLACES, PLACES), SPANS, st.lists(PLACES, max_size=3))
def test_segments_are_the_text_with_the_marks_of_each_character(
    text: str, window: tuple[int, int], spans: list[MarkedSpan], cuts: list[int]
) -> None:
    found = segments(text, window, spans, cuts)

    shown = range(max(0, window[0]), min(window[1], len(text)))
    assert "".join(each.text for each in found) == "".join(text[at] for at in shown)
    assert all(each.text == text[each.start_char :][: len(each.text)] for each in found)
    assert {each.start_char for each in found} >= {cut for cut in cuts if cut in shown}
    marks = {
        each.start_char + at: set(each.marks) for each in found for at in range(len(each.text))
    }
    for place in shown:
        above = {each.mark for each in spans if each.start_char <= place < each.end_char}
        assert marks[place] == above


def test_marks_are_in_the_order_of_their_spans() -> None:
    """The first mark is the target of a click."""
    outer, inner = (
        MarkedSpan(start_char=0, end_char=9, mark="outer"),
        MarkedSpan(start_char=4, end_char=6, mark="inner"),
    )

    found = segments("The whole", (0, 9), [outer, inner], cuts=[2])

    assert found == [
        Segment(start_char=0, text="Th", marks=("outer",)),
        Segment(start_char=2, text="e ", marks=("outer",)),
        Segment(start_char=4, text="wh", marks=("outer", "inner")),
        Segment(start_char=6, text="ole", marks=("outer",)),
    ]


@given(st.text(alphabet="ab\n", max_size=60), st.integers(1, 9))
def test_windows_cover_the_text(text: str, size: int) -> None:
    count = -(-len(text) // size)
    windows = [window_of(text, number, size) for number in range(count)]

    assert "".join(text[start:end] for start, end in windows) == text
    assert all(text[end - 1] == "\n" for _, end in windows if "\n" in text[end - 1 : end + 60])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("annual fee", ["Annual", "fee", "fee"]),
        ('"annual fee" or Fees', ["Annual", "fee", "fees", "fee"]),
        ("fees -annual", ["fees"]),
        ("or", []),
        ('"', []),
        ("fee's", ["fee", "fee"]),
        ("", []),
    ],
)
def test_the_words_of_a_search_are_found(words: str, found: list[str]) -> None:
    text = "Annual fee: all fees of it, a fee."

    places = words_at(text, sought_in(words))

    assert [text[start:end] for start, end in places] == found
