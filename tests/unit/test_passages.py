"""Tests of the passages of texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.passages import SIZE, Passages

TEXT = "Anna Berger of 12 Harbour Lane owes the bank nothing; she paid on 3 May 1902."
WORDS = st.lists(
    st.text(alphabet="abcdeäß日本", min_size=1, max_size=4), min_size=SIZE, max_size=40
)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.upper(),
        f"It says: {TEXT[5:60]}",
        json.dumps({"quote": TEXT.replace("; ", ";\n\t“")}),
        json.dumps({"body": json.dumps({"text": TEXT.replace(" ", "\n")})}),
    ],
)
def test_a_passage_is_found_in_any_spelling(text: str) -> None:
    assert Passages({"anna": TEXT}).repeated_in(text) == {"anna"}


@pytest.mark.parametrize(
    "text", ["", "Anna Berger of 12 Harbour", "Nothing owes the bank Anna Berger."]
)
def test_fewer_words_in_a_row_are_no_passage(text: str) -> None:
    assert Passages({"anna": TEXT}).repeated_in(text) == set()


@pytest.mark.parametrize(
    ("text", "is_found"), [("Berta Huber", False), ("Berta Ida Huber", True), ("東京都", True)]
)
def test_a_short_text_is_one_passage(text: str, *, is_found: bool) -> None:
    passages = Passages({"short": text})

    assert bool(passages.numbers()) is is_found
    assert bool(passages.repeated_in(f"Seen by {text}, at noon.")) is is_found


@given(WORDS, st.data())
def test_every_part_of_six_words_is_found(words: list[str], data: st.DataObject) -> None:
    passages = Passages({1: " ".join(words)})
    start = data.draw(st.integers(0, len(words) - SIZE))

    part = " ".join(words[start : start + SIZE])
    assert passages.repeated_in(f"x {part}, y") == {1}


def test_of_long_texts_eleven_words_in_a_row_are_found() -> None:
    words = [f"word{number}" for number in range(300_000)]
    passages = Passages({"long": " ".join(words)})

    assert passages.numbers()["long"] == 50_000
    for start in range(1_000, 1_006):
        assert passages.repeated_in(" ".join(words[start : start + 11])) == {"long"}


def test_passages_of_another_text_are_discarded() -> None:
    passages = Passages({"anna": f"{TEXT} Other letters lack these few last words indeed."})

    assert passages.discard(f"A copy: {TEXT}") == {"anna"}
    assert passages.repeated_in(TEXT) == set()
    assert passages.repeated_in("lack these few last words indeed.") == {"anna"}
