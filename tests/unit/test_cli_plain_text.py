"""Text of documents is shown on a terminal and never obeyed by it."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.cli.rendering.plain_text import escape_json, one_line, safe

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("right\u202eto left", "rightto left"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07 and back\x08", "bell and back"),
        ("[bold]markup[/bold] :smile:", "[bold]markup[/bold] :smile:"),
        ("Grüße, 世界, नमस्ते", "Grüße, 世界, नमस्ते"),
    ],
)
def test_escape_sequences_and_invisible_characters_are_dropped(hostile: str, shown: str) -> None:
    """Colours, links, titles and tricks with direction go; what is written stays."""
    assert safe(hostile) == shown


@given(st.text())
def test_nothing_that_is_not_shown_gets_through(text: str) -> None:
    """Whatever comes in, only printable characters, joiners and line ends come out."""
    left = {character for character in safe(text) if character not in "\n\u200c\u200d"}

    assert not [c for c in left if unicodedata.category(c) in INVISIBLE]


@given(st.text(), st.integers(min_value=2, max_value=40))
def test_a_line_has_no_line_ends_and_keeps_its_width(text: str, width: int) -> None:
    """One line is one line, and not longer than was asked for."""
    line = one_line(text, width)

    assert len(line) <= width
    assert "\n" not in line


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists))
def test_escaped_json_means_the_same(value: object) -> None:
    """The escaped document is inert and decodes to what it was made of."""
    document = json.dumps(value, ensure_ascii=False)

    escaped = escape_json(document)

    assert json.loads(escaped) == value
    assert not [c for c in escaped if c not in "\u200c\u200d" and unicodedata.category(c) == "Cc"]
    assert "\u202e" not in escaped
