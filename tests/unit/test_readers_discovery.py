"""Tests of displaying file names unambiguously, and of matching patterns as in a shell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.visible_text import printable
from chordwise.readers import discovery
from chordwise.readers.formats import markdown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("docs/report 1.pdf", "docs/report 1.pdf"),
        ("Prüfung–№ 7.txt", "Prüfung–№ 7.txt"),
        ("a\nb", "a\\nb"),
        ("a\\nb", "a\\\\nb"),
        ("a\x1b[31mb", "a\\u001b[31mb"),
        ("a\udcffb", "a\\xffb"),
        ("exe\u202efdp.txt", "exe\\u202efdp.txt"),
        ("a\0b", "a\\u0000b"),
        ("👩\u200d🔬.txt", "👩\u200d🔬.txt"),
    ],
)
def test_invisible_characters_are_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(st.text(alphabet=st.characters()))
def test_any_name_can_be_stored(name: str) -> None:
    shown = printable(name)

    assert shown.encode().decode() == shown
    assert not any(ord(character) < 0x20 for character in shown)


@given(st.text(alphabet="ab\\xnu0\n\udcff\x1b"), st.text(alphabet="ab\\xnu0\n\udcff\x1b"))
def test_different_names_are_displayed_differently(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "sub/a.txt", False),
        ("*", "sub/a.txt", True),
        ("**/*.txt", "a.txt", True),
        ("**/*.txt", "x/y/a.txt", True),
        ("**/*.txt", "x/y/a.md", False),
        ("**", "x/y/a.md", True),
        ("x/**/y/*.md", "x/1/2/y/a.md", True),
        ("x/**/y/*.md", "x/1/2/z/a.md", False),
        ("[ab].txt", "b.txt", True),
        ("?.txt", "bb.txt", False),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, path: str, *, expected: bool) -> None:
    """`**` is any depth, `*` one name; a folder that matches includes its contents."""
    folder, segments = discovery.split(pattern)

    relative = path if folder == "." else path.removeprefix(f"{folder}/")

    assert discovery.matches(relative.split("/"), segments) is expected


@given(st.lists(st.sampled_from(["a", "b"]), max_size=5), st.sampled_from(["**", "a/*", "*/b"]))
def test_skipping_folders_never_loses_a_match(path: list[str], pattern: str) -> None:
    segments = pattern.split("/")

    if discovery.matches(path, segments):
        assert all(discovery.may_hold(path[:depth], segments) for depth in range(len(path)))


def test_the_title_of_markdown_is_its_first_heading() -> None:
    extracted = markdown.read(b"```sh\n# a comment\n```\n\n# The title #\n\nText\n", 1_000)

    assert extracted.title == "The title"
    assert extracted.text.startswith("```sh")


def test_headings_of_markdown_name_their_sections() -> None:
    read = markdown.read(b"Lead\n# One #\r\ntext\n```\n# no\n```\n### 1.1 Two\nend\n", 1_000)

    sections = [
        (place.label, read.text[place.start_char : place.end_char]) for place in read.places
    ]
    assert sections == [
        ("section One", "# One #\r\ntext\n```\n# no\n```\n"),
        ("section 1.1 Two", "### 1.1 Two\nend\n"),
    ]
