"""Files in buckets and on SFTP servers as paths of commands, with real servers on loopback."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from chordwise import remote
from chordwise.client import Client
from chordwise.domain.states import IntakeOutcome
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.found_files import FileSource
from chordwise.pipeline.intake.submit import claim, open_run
from chordwise.readers.discovery import discover
from chordwise.readers.reader import ReadDocument, Reader, UnreadDocument
from chordwise.remote import RemotePath, path_of
from chordwise.settings import Profile, ReaderSettings, Settings
from tests.fakes.commands import output_of
from tests.fakes.pipeline import NOW, Pipeline, a_run
from tests.fakes.scheduling import a_scheduler, at_night
from tests.peers.file_servers import FileServer, SftpFolder


def sources_of(*paths: str) -> list[str]:
    return [file.source for file in discover(paths)]


def read(url: str, settings: ReaderSettings | None = None) -> ReadDocument | UnreadDocument:
    with Reader(settings or ReaderSettings()) as reader:
        return reader.read(path_of(url))


WHOLE = ["in/a.txt", "in/b.md", "in/sub/c.txt"]
MATCHES = {
    "in": WHOLE,
    "in/": WHOLE,
    "in/a.txt": ["in/a.txt"],
    "in/*.txt": ["in/a.txt"],
    "in/**/*.txt": ["in/a.txt", "in/sub/c.txt"],
    "*/sub": ["in/sub/c.txt"],
}


def test_folders_and_patterns_match_as_local_ones_do(
    file_server: FileServer, tmp_path: Path
) -> None:
    for name in ("in/a.txt", "in/b.md", "in/sub/c.txt", "in/.hidden", "in/x.part", "other/d.txt"):
        file_server.write(name, b"text")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"text")

    for root in (file_server.url, tmp_path):
        sources = {path: sources_of(f"{root}/{path}") for path in MATCHES}
        assert sources == {p: [f"{root}/{name}" for name in MATCHES[p]] for p in MATCHES}


def test_a_file_is_read_by_the_same_readers(file_server: FileServer) -> None:
    file_server.write("in/a.txt", b"Rent is due on the first.\n")

    document = read(f"{file_server.url}/in/a.txt")

    assert isinstance(document, ReadDocument)
    assert document.source == f"{file_server.url}/in/a.txt"
    assert "Rent is due" in document.content.text


def test_a_file_that_cannot_be_fetched_is_not_read(
    file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have vanished, change in the meantime, or be too large to be fetched at all."""
    file_server.write("in/a.txt", b"first")
    file_server.write("in/large.txt", b"x" * (1024 * 1024 + 1))
    pieces = RemotePath.pieces

    def changed(path: RemotePath) -> object:
        assert "large" not in str(path)
        yield from pieces(path)
        file_server.write("in/a.txt", b"another")

    monkeypatch.setattr(RemotePath, "pieces", changed)
    limits = ReaderSettings(max_file_megabytes=1)

    errors = {}
    for name in ("a", "large", "gone"):
        document = read(f"{file_server.url}/in/{name}.txt", limits)
        assert isinstance(document, UnreadDocument)
        errors[name] = document.error

    assert errors["a"].reason == "changed"
    assert errors["large"].outcome == IntakeOutcome.TOO_LARGE
    assert errors["gone"].reason == "not_found"
    assert f"{file_server.url}/in/gone.txt" in errors["gone"].what


@pytest.mark.usefixtures("bucket")
def test_nothing_that_matches_is_an_error_as_for_local_paths(file_server: FileServer) -> None:
    file_server.write("in/a.txt", b"text")

    roots, paths = (file_server.url, "s3://no-such-bucket"), ("none", "none.txt", "in/*.pdf")
    for url in (f"{root}/{path}" for root in roots for path in (*paths, "none/*.txt")):
        with pytest.raises(UsageError, match=r"matches no file") as raised:
            sources_of(url)
        assert url.partition("//")[2].partition("/")[0] in raised.value.what


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "", "Unable to locate credentials"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "Could not connect"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_a_failed_entry(
    bucket: FileServer, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    (file,) = discover([f"{bucket.url}/in"])

    assert file.failure is not None
    assert file.failure.what.startswith(f"{bucket.url}/in cannot be reached: {reason}")
    assert "AWS_PROFILE" in file.failure.hint


def test_an_unknown_host_key_is_refused(
    sftp_server: SftpFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    (file,) = discover([f"{sftp_server.url}/in"])

    assert file.failure is not None
    assert "known_hosts" in file.failure.hint


def test_a_password_in_a_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="contains a password") as raised:
        list(discover(["sftp://user:secret@example.org/in"]))

    assert "secret" not in f"{raised.value.what} {raised.value.hint}"


def test_without_the_extra_the_message_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote.file_system.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(ConfigurationError) as raised:
        list(discover(["gs://bucket/in"]))

    assert "pip install 'chordwise[remote]'" in raised.value.hint


def test_a_link_on_a_server_is_not_followed(sftp_server: SftpFolder) -> None:
    sftp_server.write("in/a.txt", b"text")
    sftp_server.link("in/b.txt", "a.txt")

    assert [file.failure is None for file in discover([f"{sftp_server.url}/in"])] == [True, False]


SUBMITTED = "SELECT source, outcome, reason FROM intakes ORDER BY source"


@pytest.mark.usefixtures("addressed")
def test_a_command_takes_in_a_folder_of_a_bucket(pipeline: Pipeline, bucket: FileServer) -> None:
    bucket.write("in/a.txt", b"Rent is due on the first.")
    bucket.write("in/b.pdf", b"%PDF-1.7 without an end")

    output_of("submit", f"{bucket.url}/in", "--model", "extractive")

    assert [row[:2] for row in pipeline.rows(SUBMITTED)] == [
        (f"{bucket.url}/in/a.txt", "accepted"),
        (f"{bucket.url}/in/b.pdf", "unreadable"),
    ]
    assert pipeline.value("SELECT options -> 'paths' ->> 0 FROM runs") == f"{bucket.url}/in"


def test_an_interrupted_run_takes_in_the_versions_that_it_found(
    pipeline: Pipeline, bucket: FileServer
) -> None:
    for name in ("a", "b", "c"):
        bucket.write(f"in/{name}.txt", name.encode())
    entries = [found_files.entry_of(file) for file in discover([f"{bucket.url}/in"])]
    run = open_run(pipeline.context, a_run(), NOW, entries)
    run.close()
    bucket.write("in/b.txt", b"changed")
    bucket.remove("in/c.txt")

    resumed = claim(pipeline.context, run.run_id)
    assert resumed is not None
    with Reader(ReaderSettings()) as reader:
        found_files.take_in(pipeline.context, resumed, FileSource(reader, io.BytesIO()))

    assert pipeline.rows(SUBMITTED) == [
        (f"{bucket.url}/in/a.txt", "accepted", None),
        (f"{bucket.url}/in/b.txt", "unreadable", "changed"),
        (f"{bucket.url}/in/c.txt", "unreadable", "not_found"),
    ]


@pytest.mark.usefixtures("addressed")
def test_the_client_quotes_and_submits_a_pattern(bucket: FileServer) -> None:
    bucket.write("in/a.txt", b"Rent is due on the first.")

    with Client() as client:
        assert client.quote(f"{bucket.url}/**/*.txt", Profile(model="extractive")).documents == 1
        run = client.submit(f"{bucket.url}/**/*.txt", Profile(model="extractive"))

        assert run.account().intakes_found == 1


def test_a_schedule_waits_for_files_in_a_bucket(settings: Settings, bucket: FileServer) -> None:
    """An empty folder is no error, as it is for a local one."""
    scheduler = a_scheduler(settings, letters=at_night(f"submit {bucket.url}/in --nightly"))
    scheduler.start_at("2026-03-28T02:30:05")
    assert scheduler.carry_out()
    bucket.write("in/a.txt", b"Rent is due on the first.")
    scheduler.start_at("2026-03-29T03:30:05")
    assert scheduler.carry_out()

    assert scheduler.rows("SELECT source FROM intakes") == [(f"{bucket.url}/in/a.txt",)]
    assert next(status for _, _, status in scheduler.history()) == "succeeded"
