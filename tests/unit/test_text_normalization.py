"""Whatever the text, PostgreSQL takes what `normalize` makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.text_normalization import normalize

ANY_TEXT = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.sampled_from("\0\r\n\ufeff\ud800\udfff"),
        st.characters(categories=["Cs"]),
    )
)


@pytest.mark.parametrize(
    ("raw", "text", "counts"),
    [
        ("plain\ntext", "plain\ntext", (0, 0, 0)),
        ("a\0b\0", "ab", (2, 0, 0)),
        ("a\ud800b\udfff", "a\ufffdb\ufffd", (0, 2, 0)),
        ("a\r\nb\rc\n\r", "a\nb\nc\n\n", (0, 0, 3)),
        ("\ufeffa\ufeffb", "ab", (0, 0, 0)),
        ("\0\ufeff\r\0\n", "\n", (2, 0, 1)),
        ("", "", (0, 0, 0)),
    ],
)
def test_each_change_is_made_and_counted(raw: str, text: str, counts: tuple[int, int, int]) -> None:
    """NUL goes, lone surrogates are replaced, lines end in a line feed; each is counted."""
    normalized = normalize(raw)

    assert normalized.text == text
    assert counts == (
        normalized.nul_removed,
        normalized.surrogates_replaced,
        normalized.line_ends_changed,
    )


@given(ANY_TEXT)
def test_the_result_can_be_stored(raw: str) -> None:
    """The text encodes to UTF-8 and holds neither NUL nor a carriage return nor a leading mark."""
    text = normalize(raw).text

    assert text.encode().decode() == text
    assert not {"\0", "\r"} & set(text)
    assert not text.startswith("\ufeff")


@given(ANY_TEXT)
def test_normalizing_twice_changes_nothing_more(raw: str) -> None:
    """A normalised text is its own normal form, with all counts zero."""
    once = normalize(raw).text

    again = normalize(once)

    assert again == normalize(again.text)
    assert (again.text, again.nul_removed, again.line_ends_changed) == (once, 0, 0)
    assert again.surrogates_replaced == 0


@given(
    st.text(
        alphabet=st.characters(
            exclude_categories=["Cs", "Cc", "Cf", "Cn", "Mn"],
            exclude_characters="\u115f\u1160\u3164\uffa0",
        )
    )
)
def test_good_text_is_left_alone(text: str) -> None:
    """Text without any of the faults comes back as it was."""
    assert normalize(text).text == text
