"""Tests of discovery: files are found once, sorted, and never outside of their folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from chordwise.errors import UsageError
from chordwise.readers.discovery import FoundFile, discover
from chordwise.readers.reader import ReadDocument, Reader, UnreadDocument
from chordwise.settings import ReaderSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        *("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.md", "sub/e.md", "B.txt"),
        *(".hidden", ".git/config", "~$a.docx", "x.part", "y.tmp", ".DS_Store", "Thumbs.db"),
        *("a.txt.chordwise.toml", "__MACOSX/a.txt"),
    ):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "docs"


def sources(*arguments: str) -> list[str]:
    return [file.source for file in discover(arguments)]


def failures(files: Sequence[FoundFile]) -> dict[str, str]:
    return {file.path.name: file.failure.reason for file in files if file.failure and file.path}


@pytest.mark.usefixtures("folder")
class TestNames:
    """Tests of the files that each kind of argument finds."""

    def test_the_files_of_a_folder_are_sorted(self) -> None:
        assert sources("docs") == [
            "docs/B.txt",
            "docs/a.txt",
            "docs/b.txt",
            "docs/sub/c.txt",
            "docs/sub/deep/d.md",
            "docs/sub/e.md",
        ]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("docs/*.txt", ["docs/B.txt", "docs/a.txt", "docs/b.txt"]),
            ("docs/**/*.md", ["docs/sub/deep/d.md", "docs/sub/e.md"]),
            ("**/c.*", ["./docs/sub/c.txt"]),
            ("d?cs/sub", ["./docs/sub/c.txt", "./docs/sub/deep/d.md", "./docs/sub/e.md"]),
        ],
    )
    def test_a_pattern_matches_as_in_a_shell(self, pattern: str, expected: list[str]) -> None:
        assert sources(pattern) == expected

    def test_the_same_file_is_found_once(self) -> None:
        assert sources("docs/b.txt", "./docs/sub/../b.txt", "docs/*.txt") == [
            "docs/b.txt",
            "docs/B.txt",
            "docs/a.txt",
        ]

    def test_a_hidden_file_that_is_named_is_found(self) -> None:
        assert sources("docs/.hidden") == ["docs/.hidden"]

    def test_an_existing_file_name_is_not_a_pattern(self) -> None:
        Path("report[1].txt").write_text("x")

        assert sources("report[1].txt") == ["report[1].txt"]

    def test_a_dash_is_standard_input(self) -> None:
        files = list(discover(["-", "docs/a.txt", "-"]))

        assert [file.source for file in files] == ["stdin", "docs/a.txt"]
        assert files[0].path is None

    @pytest.mark.parametrize(
        "argument", ["nothing.txt", "docs/*.pdf", "no/**/such", "a\0b", "", "new"]
    )
    def test_an_argument_without_files_is_refused_before_discovery(self, argument: str) -> None:
        Path("new").mkdir()

        with pytest.raises(UsageError) as refusal:
            discover(["docs", argument])

        assert argument.replace("\0", "\\u0000") in str(refusal.value)


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "outside.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "broken").symlink_to("nowhere")
    (folder / "same").symlink_to("b.txt")

    files = list(discover(["docs"]))

    assert failures(files) == {
        "out": "symlink",
        "up": "symlink",
        "self": "symlink",
        "broken": "not_found",
    }
    names = [file.source for file in files if file.failure is None]
    assert names == sorted(names)
    assert len(names) == 6
    assert not any(file.follow_symlinks for file in files)


def test_a_link_that_is_named_is_followed(folder: Path) -> None:
    Path("link.txt").symlink_to(folder / "a.txt")
    Path("linked").symlink_to(folder / "sub")

    files = list(discover(["link.txt", "linked"]))

    assert [file.source for file in files] == [
        "link.txt",
        "linked/c.txt",
        "linked/deep/d.md",
        "linked/e.md",
    ]
    assert files[0].follow_symlinks


def test_a_special_file_is_found_and_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with Reader(ReaderSettings()) as reader:
        outcomes = [
            reader.read(file.path, follow_symlinks=file.follow_symlinks)
            for file in discover(["docs/pipe", "docs/a.txt"])
            if file.path is not None
        ]

    assert isinstance(outcomes[0], UnreadDocument)
    assert outcomes[0].error.outcome == "refused"
    assert isinstance(outcomes[1], ReadDocument)


@pytest.mark.usefixtures("folder")
def test_a_file_with_any_name_is_read_and_its_name_escaped() -> None:
    names = [b"new\nline.txt", b"raw\xff.txt", "rtl\u202eexe.txt".encode(), b"-rf", b"=cmd()"]
    Path("odd").mkdir()
    for name in names:
        Path("odd", os.fsdecode(name)).write_text("text")

    with Reader(ReaderSettings()) as reader:
        files = list(discover(["odd"]))
        read = [reader.read(file.path) for file in files if file.path]

    assert [file.source for file in files] == [
        "odd/-rf",
        "odd/=cmd()",
        "odd/new\\nline.txt",
        "odd/raw\\xff.txt",
        "odd/rtl\\u202eexe.txt",
    ]
    assert all(isinstance(outcome, ReadDocument) for outcome in read)
    assert [outcome.source for outcome in read] == [file.source for file in files]


@pytest.mark.usefixtures("folder")
def test_a_deep_folder_is_searched_completely() -> None:
    """Folders may be nested deeper than Python's limit of recursion."""
    depth = 1_200
    start = Path.cwd()
    Path("deep").mkdir()
    os.chdir("deep")
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("end.txt").write_text("x")
    os.chdir(start)

    names = sources("deep")
    # The cleanup of pytest is recursive.
    subprocess.run(["rm", "-r", "deep"], check=True)  # noqa: S607 - any rm will do

    assert [len(Path(source).parts) for source in names] == [depth + 2]
