"""Tests of displaying file names unambiguously, and of matching patterns as in a shell."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.visible_text import printable
from chordwise.readers import discovery
from chordwise.readers.discovery import FileList, FoundFile, discover
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


def test_a_long_list_of_files_is_not_in_memory() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        files = FileList()
        for number in range(count):
            files.append(FoundFile(source=f"/folder/{number}.txt", path=None))
        assert sum(1 for _ in files) == len(files) == count
        _, bytes_ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_

    peak(10)
    # Without paths: the table of the interned names of paths grows at unforeseeable moments.
    assert peak(20_000) < peak(200) + 20 * 20_000


def test_a_list_keeps_the_files_and_their_order(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).touch()
    names = [str(tmp_path / "c.txt"), str(tmp_path), "-"]
    files = FileList()
    for file in discover(names):
        files.append(file)

    assert list(files) == list(discover(names))
    assert [Path(file.source).name for file in files] == ["c.txt", "a.txt", "b.txt", "stdin"]


def test_a_list_without_space_on_disk_is_explained() -> None:
    script = """
import resource, signal
from pathlib import Path
from chordwise.errors import UsageError
from chordwise.readers.discovery import FileList, FoundFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))
files = FileList()
try:
    for number in range(50_000):
        files.append(FoundFile(source=f"/{number}" * 5, path=Path(f"/folder/{number}.txt")))
except UsageError as error:
    print(error.what)
"""
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed.startswith("The list of files cannot be stored on disk")
