"""What sentences of ours may quote of a server's words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chordwise.llm.transport import MAX_CHARACTERS, excerpt, page_title


@given(st.text(max_size=3_000))
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    """Neither escape sequences nor line breaks reach a terminal or a log."""
    shown = excerpt(text)

    assert len(shown) <= MAX_CHARACTERS
    assert shown.isprintable()


def test_an_echo_of_the_prompt_is_not_shown() -> None:
    """Servers like to repeat the input that they reject; documents must not end in logs."""
    document = "Patient Erika Mustermann was admitted\non Tuesday with a broken arm."

    shown = excerpt("Invalid input: 'Mustermann was admitted on Tuesday with'", [document])

    assert "Mustermann" not in shown


def test_an_echo_of_the_key_is_not_shown() -> None:
    """A key is hidden as a whole, however short."""
    assert "sk-1234" not in excerpt("Incorrect API key provided: sk-1234.", ["sk-1234"])


def test_words_of_the_provider_are_shown() -> None:
    """What repeats nothing is quoted, with an empty key and a prompt that has some words of it."""
    message = "Rate limit reached for gpt-6 on tokens per minute."

    assert excerpt(message, ["", "Which rate limit was reached?"]) == message


def test_a_page_without_a_title_has_none() -> None:
    """Only a title says which page it is."""
    assert page_title(b"<html><body>hello</body></html>") == ""
    assert page_title(b"<TITLE lang=en> Log in </TITLE>") == "Log in"
