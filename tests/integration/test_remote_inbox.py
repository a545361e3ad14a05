"""Inboxes in a bucket and on an SFTP server: files are read where they lie, and moved once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.remote import RemotePath
from chordwise.settings import InboxSettings, Profile, Settings
from tests.fakes.commands import output_of
from tests.fakes.inbox_watch import LETTER, OTHER, WatchedInbox, watched
from tests.peers.file_servers import FileServer, SftpFolder

STATES = "SELECT name, status, reason, attempts FROM inbox_files ORDER BY id"
TIMES = ("before", "after")
# The file system of another bucket differs in the facts about a file, which the first test reads.
SERVERS = ("bucket", "sftp_server")
ON_EACH = pytest.mark.parametrize("file_server", SERVERS, indirect=True)
KILLS = [
    *((server, "move", when) for server in SERVERS for when in TIMES),
    ("bucket", "move", "between"),
    *(
        pytest.param(server, method, when, marks=pytest.mark.nightly)
        for server in SERVERS
        for method in ("unlink", "writing")
        for when in TIMES
    ),
]


@pytest.fixture
def remote_inbox(
    file_server: FileServer, tmp_path: Path, settings: Settings
) -> Iterator[WatchedInbox]:
    file_server.write("inbox/.keep", b"")
    profiles = {"letters": Profile(types=("summary",))}
    inbox = watched(tmp_path, settings, profiles, folders=(Path(f"{file_server.url}/inbox"),))
    yield inbox
    inbox.close()


def deliver(inbox: WatchedInbox) -> None:
    inbox.wait(inbox.pipeline.context.settings.inbox.polling_seconds)
    inbox.deliver()


def visible(server: FileServer) -> list[str]:
    return [name for name in server.names() if name != "inbox/.keep"]


def note(server: FileServer, name: str) -> dict[str, object]:
    written = json.loads(server.read(f"{name}.json"))
    assert isinstance(written, dict)
    return written


def test_a_file_is_read_where_it_lies_and_moved_with_its_note(
    remote_inbox: WatchedInbox, file_server: FileServer
) -> None:
    file_server.write("inbox/letters/2026/a.txt", LETTER.encode())
    file_server.write("inbox/letters/2026/a.txt.chordwise.toml", b'save_as = "mail"')
    file_server.write("inbox/b.txt.part", b"unfinished")

    deliver(remote_inbox)

    assert visible(file_server) == [
        "done/letters/2026/a.txt",
        "done/letters/2026/a.txt.chordwise.toml",
        "done/letters/2026/a.txt.json",
        "inbox/b.txt.part",
    ]
    assert file_server.read("done/letters/2026/a.txt") == LETTER.encode()
    written = note(file_server, "done/letters/2026/a.txt")
    assert (written["outcome"], written["profile"]) == ("done", "letters")
    assert written["sha256"]
    source = f"{file_server.url}/inbox/letters/2026/a.txt"
    assert remote_inbox.pipeline.value("SELECT source FROM intakes") == source
    assert remote_inbox.pipeline.value("SELECT saved_as FROM runs") == "mail"


@ON_EACH
def test_the_folder_of_a_profile_is_made_at_the_server(
    remote_inbox: WatchedInbox,
    file_server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    remote_inbox.watch.make_folders()

    assert list(tmp_path.glob("*:")) == []
    assert RemotePath(f"{file_server.url}/inbox/letters").is_dir()


@ON_EACH
def test_a_file_that_still_grows_is_not_taken(
    remote_inbox: WatchedInbox, file_server: FileServer
) -> None:
    for length in (1, 2, 3):
        file_server.write("inbox/a.txt", LETTER.encode() * length)
        remote_inbox.wait(3)

    assert remote_inbox.pipeline.rows(STATES) == []
    deliver(remote_inbox)
    assert file_server.read("done/a.txt") == LETTER.encode() * 3


@ON_EACH
def test_a_file_that_fails_is_moved_to_failed_and_names_are_kept(
    remote_inbox: WatchedInbox, file_server: FileServer
) -> None:
    file_server.write("failed/a.pdf", b"an earlier one")
    file_server.write("inbox/a.pdf", b"%PDF-1.7 without an end")

    deliver(remote_inbox)

    assert visible(file_server) == ["failed/a (2).pdf", "failed/a (2).pdf.json", "failed/a.pdf"]
    assert file_server.read("failed/a.pdf") == b"an earlier one"


@ON_EACH
@pytest.mark.parametrize(
    ("content", "reason", "kept"),
    [
        (OTHER.encode(), "changed", ["done/a (2).txt", "done/a (2).txt.json"]),
        (None, "vanished", []),
    ],
)
def test_a_file_that_is_replaced_is_another_document(
    remote_inbox: WatchedInbox,
    file_server: FileServer,
    content: bytes | None,
    reason: str,
    kept: list[str],
) -> None:
    """One that is removed is reported."""
    file_server.write("inbox/a.txt", LETTER.encode())
    remote_inbox.take()
    remote_inbox.work()
    if content:
        file_server.write("inbox/a.txt", content)
    else:
        file_server.remove("inbox/a.txt")

    remote_inbox.wait(1)
    deliver(remote_inbox)

    assert note(file_server, "done/a.txt")["reason"] == reason
    assert not content or file_server.read("done/a (2).txt") == content
    assert visible(file_server) == [*kept, "done/a.txt.json"]


@pytest.mark.parametrize(("file_server", "method", "when"), KILLS, indirect=["file_server"])
def test_a_move_that_is_interrupted_is_completed_once(
    remote_inbox: WatchedInbox,
    file_server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    when: str,
) -> None:
    """A kill before or after each step leaves the file complete, and the next process ends it.

    In a bucket, a move is a copy and a removal, and the kill may come between them.
    """
    file_server.write("inbox/a.txt", LETTER.encode())
    remote_inbox.take()
    remote_inbox.work()
    original = getattr(RemotePath, method)

    def killed(*arguments: object, **options: object) -> object:
        if when == "after":
            original(*arguments, **options)
        if when == "between":
            file_server.write("done/a.txt", LETTER.encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RemotePath, method, killed)
        try:
            remote_inbox.wait(1)
        except KeyboardInterrupt:
            assert LETTER.encode() in [file_server.read(name) for name in visible(file_server)]
    remote_inbox.begin_anew()
    deliver(remote_inbox)

    assert visible(file_server) == ["done/a.txt", "done/a.txt.json"]
    assert remote_inbox.pipeline.rows(STATES) == [("a.txt", "done", None, 1)]


@ON_EACH
def test_a_server_that_is_away_costs_nothing(
    remote_inbox: WatchedInbox, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.write("inbox/a.txt", LETTER.encode())
    remote_inbox.take()
    remote_inbox.work()
    with monkeypatch.context() as patched:
        patched.setattr("chordwise.remote.file_system", lambda base: 1 / len(base[:0]))
        patched.setattr("chordwise.remote.file_system.cache_clear", lambda: None, raising=False)
        remote_inbox.wait(1)
        deliver(remote_inbox)
        assert remote_inbox.pipeline.value("SELECT count(*) FROM inbox_files WHERE reason IS NULL")
    remote_inbox.now += 1_000
    deliver(remote_inbox)

    assert visible(file_server) == ["done/a.txt", "done/a.txt.json"]


def test_a_link_is_refused(sftp_server: SftpFolder, tmp_path: Path, settings: Settings) -> None:
    sftp_server.write("inbox/a.txt", LETTER.encode())
    sftp_server.link("inbox/b.txt", "a.txt")
    inbox = watched(tmp_path, settings, folders=(Path(f"{sftp_server.url}/inbox"),))

    deliver(inbox)
    inbox.close()

    assert sftp_server.names() == ["done/a.txt", "done/a.txt.json", "inbox/b.txt"]


@pytest.mark.usefixtures("addressed")
def test_the_commands_show_a_remote_inbox(bucket: FileServer, tmp_path: Path) -> None:
    bucket.write("inbox/a.txt", LETTER.encode())
    (tmp_path / "chordwise.toml").write_text(
        f'[inbox]\nfolders = ["{bucket.url}/inbox"]\n', "utf-8"
    )

    (account,) = json.loads(output_of("inbox", "--json").out)["inboxes"]

    assert (account["folder"], account["waiting"]) == (f"{bucket.url}/inbox", 1)
    assert f"polled: {bucket.url}/inbox" in output_of("doctor", code=ExitCode.SUCCESS).out


def test_a_whole_bucket_is_no_inbox(settings: Settings) -> None:
    inbox = InboxSettings(folders=(Path("s3://bucket"),))

    with pytest.raises(ConfigurationError, match="s3://bucket is not a folder in a bucket"):
        inboxes_of(settings.model_copy(update={"inbox": inbox}))
