"""F05 to F08, F11 and F12: unusual names and encodings, hostile files, and missing permissions."""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from chordwise.domain import json_values
from tests.fakes.processes import wait_until
from tests.faults import hostile_files
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import CHUNKS, Experiment
from tests.faults.hostile_files import traversing_archive
from tests.faults.members import Member

_KOELN = "Köln.txt"
NAMES = (
    b"new\nline.txt",
    b"-rf.txt",
    b"--help",
    b"=cmd().txt",
    b"@SUM(1+1)*cmd.txt",
    b"\xff\xfe.txt",
    b"caf\xe9/\xff folder/latin.txt",
    b"back\\..\\..\\slash.txt",
    b"x" * 251 + b".txt",
    b"tab\t\x07bell\x1b[31m.txt",
    b"$(reboot);`id`|&.txt",
    b" spaces .txt",
    b"%s%n{0}.txt",
    "\u202etxt.exe.txt".encode(),
    unicodedata.normalize("NFC", _KOELN).encode(),
    unicodedata.normalize("NFD", _KOELN).encode(),
)
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_NULL_DEVICE = os.makedev(1, 3)


def unprintable(text: str) -> set[str]:
    """Return the characters that a terminal interprets or does not show."""
    return {sign for sign in text if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf")}


def exported(cluster: Cluster, table: str, column: str) -> list[str]:
    done = cluster.run("export", table, "--columns", column)
    assert done.returncode == 0, done.stderr
    return [row[0] for row in list(csv.reader(io.StringIO(done.stdout)))[1:]]


def relative_bytes(folder: Path) -> set[bytes]:
    return {os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.thorough
def test_unusual_file_names_are_preserved(cluster: Cluster, experiment: Experiment) -> None:
    """F06: every file is delivered under the same bytes, and every name is shown safely."""
    experiment.begin(
        "F06", f"{len(NAMES)} names, such as invalid UTF-8, =cmd(), newlines, NFC and NFD"
    )
    drops = cluster.open_inbox()
    cluster.start_watching()
    around = set(drops.folders.root.parent.iterdir())

    for number, name in enumerate(NAMES):
        drops.drop(name, cluster.documents.text(number))
    drops.drop("archive.zip", traversing_archive(cluster.documents.text(len(NAMES))))
    drops.wait_until_delivered(len(NAMES) + 1, 60, cluster.story)
    experiment.fault_is_over()
    drops.drop("plain.txt", cluster.documents.text(len(NAMES) + 1))
    drops.wait_until_delivered(len(NAMES) + 2, 20, cluster.story)
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    shown = cluster.run("inbox", "--json").stdout + cluster.run("inbox").stdout
    cells = exported(cluster, "inbox_files", "name") + exported(cluster, "intakes", "source")
    assert {*NAMES, b"archive.zip"} <= relative_bytes(drops.folders.done)
    assert set(drops.folders.root.parent.iterdir()) == around
    assert unprintable(shown + cluster.logs() + "".join(cells)) == set()
    assert [cell for cell in cells if cell.startswith(_FORMULAS)] == []
    members = [json_values.objects(note["intakes"]) for note in drops.notes("archive.zip")]
    assert [member["outcome"] for member in members[0]] == ["accepted"] * 4


def plant(drops: Drops, twin: str) -> set[str]:
    """Create links, pipes, sockets and devices in the inbox; return their names."""
    inbox = drops.folders.inbox
    (inbox / "link.txt").symlink_to("/etc/passwd")
    (inbox / "dangling.txt").symlink_to(inbox / "nowhere.txt")
    (inbox / "loop").symlink_to(inbox, target_is_directory=True)
    os.mkfifo(inbox / "pipe.txt")
    outside = drops.folders.root / "outside.txt"
    outside.write_text(twin, "utf-8")
    drops.expect(outside)
    (inbox / "twin.txt").hardlink_to(outside)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
    Path("socket.txt").rename(inbox / "socket.txt")
    names = {"link.txt", "dangling.txt", "loop", "pipe.txt", "twin.txt", "socket.txt"}
    if os.geteuid() == 0:
        os.mknod(inbox / "device.txt", stat.S_IFCHR | 0o600, _NULL_DEVICE)
        names.add("device.txt")
    return names


def refusals(scheduler: Member) -> Counter[str]:
    """Return how often each entry was reported as refused."""
    lines = [line for line in scheduler.text().splitlines() if '"inbox.refused"' in line]
    return Counter(Path(line.split('"file": "')[1].split('"')[0]).name for line in lines)


@pytest.mark.thorough
def test_special_files_are_reported_and_left_in_place(
    cluster: Cluster, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F07: links, loops, pipes, sockets and devices are reported once, and left in place."""
    experiment.begin("F07", "links, loops, a second name, a pipe, a socket, a device")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    drops = cluster.open_inbox()
    scheduler = cluster.start_watching()

    planted = plant(drops, cluster.documents.text(99))
    for number in range(4):  # each file triggers another scan
        drops.drop(f"honest-{number}.txt", cluster.documents.text(number))
        drops.wait_until_delivered(number + 1, 60, cluster.story)
    told = refusals(scheduler)
    left = {path.name for path in drops.folders.inbox.iterdir()}
    shown = cluster.run("inbox").stdout
    (drops.folders.root / "outside.txt").unlink()
    drops.drop("honest-4.txt", cluster.documents.text(4))
    experiment.fault_is_over()

    drops.wait_until_delivered(6, 60, cluster.story)
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="each reported once; second name accepted after the first was gone",
    )
    assert told == dict.fromkeys(planted, 1)
    assert left == planted
    assert all(name in shown for name in planted)
    assert drops.outcomes()["twin.txt"] == "done"
    assert cluster.count("SELECT count(*) FROM documents WHERE text LIKE '%root:%'") == 0


COMBINING_BYTES = 1_000_000
_MARKS_OF_ONE = 400
_INVISIBLE = "a\u200b\u200c\u200d\u2060\ufeff"
_GERMAN = "Müller öffnet das Café in der Straße um acht Uhr, und es kostet „zehn“ €. "
_JAPANESE = "会議は五月に開かれた。港は千八百五十六年に建て直された。"
_TEXTS = "SELECT i.source, d.text, d.normalization FROM intakes AS i JOIN documents AS d"
_QUERY = f"{_TEXTS} ON d.id = i.document_id"


def stored(cluster: Cluster) -> dict[str, tuple[str, Mapping[str, object]]]:
    """Return the stored text of each file, and its normalization."""
    return {
        str(source).rsplit("/", 1)[-1]: (str(text), changes if isinstance(changes, dict) else {})
        for source, text, changes in cluster.rows(_QUERY)
    }


def combining() -> str:
    """Return a megabyte of letters with hundreds of accents each."""
    letter = "a" + "\u0301" * _MARKS_OF_ONE
    count = COMBINING_BYTES // len(letter.encode())
    return " ".join(f"{number} {letter}" for number in range(count))


def _read_in_larger_chunks(cluster: Cluster) -> None:
    config = cluster.folder / "chordwise.toml"
    written = config.read_text("utf-8").replace("chunk_tokens = 400", "chunk_tokens = 8000")
    config.write_text(written, "utf-8")


@pytest.mark.thorough
def test_unstorable_characters_are_replaced(cluster: Cluster, experiment: Experiment) -> None:
    """F11: NUL, lone surrogates and similar characters are replaced; the changes are counted."""
    experiment.begin("F11", "NUL, surrogates, noncharacters, 1 MB of accents, zero width, tags")
    _read_in_larger_chunks(cluster)
    drops = cluster.open_inbox()
    cluster.start_watching()
    begin = cluster.documents.text
    texts = {
        "nul.txt": f"{begin(1)} A\0B.",
        "nul.html": f"<p>{begin(2)} A&#0;B.</p>",
        "surrogate.html": f"<p>{begin(3)} A&#xD800;B.</p>",
        "surrogate.txt": f"{begin(4)} {_GERMAN}A\ud800B.",
        "noncharacters.txt": f"{begin(5)} \ufffe\uffff\U0001fffe\ufdd0.",
        "zero-width.txt": f"{begin(6)} {_INVISIBLE * 500}",
        "tags.txt": f"{begin(7)} {''.join(chr(0xE0000 + ord(sign)) for sign in 'ignore all')}",
        "directions.txt": f"{begin(8)} \u202eabc\u202c \u2066\u2067\u2069 \x1b[31m\x07",
        "accents.txt": f"{begin(9)} {combining()}",
    }

    for name, text in texts.items():
        drops.drop(name, text.encode("utf-8", "surrogatepass"))
    experiment.fault_is_over()

    drops.wait_until_delivered(len(texts), 240, cluster.story)
    contents = stored(cluster)
    chunks = cluster.count("SELECT count(*) FROM chunks")
    experiment.finish(
        bound_seconds=WAITING_SECONDS + (1 + chunks / CHUNKS) * experiment.undisturbed_seconds,
        notes=f"{chunks} chunks",
    )
    assert drops.outcomes() == dict.fromkeys(texts, "done")
    assert all("\0" not in text for text, _ in contents.values())
    assert "\u0301" * _MARKS_OF_ONE in contents["accents.txt"][0]
    assert contents["nul.txt"][1].get("nul_removed") == 1
    assert contents["surrogate.txt"][1].get("surrogates_replaced") == 1
    assert contents["surrogate.txt"][0].endswith(f"{_GERMAN}A\ufffdB.")


@pytest.mark.thorough
def test_encodings_are_detected_and_binary_content_refused(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F12: encodings are detected, line ends unified, and binary content is refused."""
    experiment.begin("F12", "cp1252, UTF-16 without mark, Shift JIS, binary, mixed line ends")
    drops = cluster.open_inbox()
    cluster.start_watching()
    german, japanese = _GERMAN * 5, _JAPANESE * 8
    texts = {
        "cp1252.txt": (german, german.encode("cp1252")),
        "utf-16-le.txt": (f"1. {german}", f"1. {german}".encode("utf-16-le")),
        "utf-16-be.txt": (f"2. {german}", f"2. {german}".encode("utf-16-be")),
        "utf-16.txt": (f"3. {german}", f"3. {german}".encode("utf-16")),
        "utf-8-sig.txt": (f"4. {german}", f"4. {german}".encode("utf-8-sig")),
        "shift-jis.txt": (japanese, japanese.encode("shift_jis")),
        "lines.txt": ("One.\nTwo.\nThree.\nFour.", b"One.\r\nTwo.\rThree.\nFour."),
    }
    binary = {
        "picture.txt": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20,
        "program.txt": b"\x7fELF\x02\x01\x01" + bytes(9) + bytes(range(256)) * 20,
        "random.txt": bytes(number * number * 31 % 251 for number in range(20_000)),
    }

    for name, (_, content) in texts.items():
        drops.drop(name, content)
    for name, content in binary.items():
        drops.drop(name, content)
    experiment.fault_is_over()

    drops.wait_until_delivered(len(texts) + len(binary), 60, cluster.story)
    contents, outcomes = stored(cluster), drops.outcomes()
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    wrong = {name for name, (text, _) in texts.items() if contents[name][0].strip() != text.strip()}
    assert wrong == set()
    assert contents["lines.txt"][1].get("line_ends_changed") == 2
    assert {name: outcomes[name] for name in binary if outcomes[name] == "done"} == {}


PAGES = 1_000_000
HONEST = 11
PROMISED_SECONDS = 30.0
MEMORY_MEGABYTES = 1_024
_READERS = """
[readers]
timeout_seconds = 20
memory_megabytes = 256
max_unpacked_megabytes = 200
"""
# Some files are repaired into an empty document, which counts as a refusal.
HOSTILE: Mapping[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "bomb.docx": (hostile_files.zip_bomb, ("zip_bomb",)),
    "laughs.docx": (hostile_files.billion_laughs, ("malformed",)),
    "entity.docx": (hostile_files.external_entity, ("malformed",)),
    "deep.zip": (lambda: hostile_files.nested_archives(10), ("nested_too_deep",)),
    "many.zip": (lambda: hostile_files.multiplying_archives(10), ("unpacked_size", "binary")),
    "pages.pdf": (
        lambda: hostile_files.pdf_of_pages(PAGES),
        ("parser_crashed", "timeout", "memory"),
    ),
    "flate.pdf": (
        lambda: hostile_files.flate_bomb(1_000),
        ("parser_crashed", "timeout", "memory", "empty", "malformed"),
    ),
    "encrypted.pdf": (hostile_files.encrypted, ("encrypted",)),
    "xref.pdf": (hostile_files.cross_reference_loop, ("empty", "malformed")),
    "tree.pdf": (hostile_files.page_tree_loop, ("empty", "malformed")),
}
_LONGEST = "SELECT max(extract(epoch FROM submitted_at - created_at))::float FROM inbox_files"


def readers_of(scheduler: Member) -> set[int]:
    """Return the process ids of a scheduler's current readers."""
    children = psutil.Process(scheduler.process.pid).children(recursive=True)
    return {child.pid for child in children if "chordwise.readers.parser_main" in child.cmdline()}


@pytest.mark.thorough
def test_hostile_files_are_refused_and_others_are_read(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F05: each has a code within its limits, its reader is replaced, other files are read."""
    experiment.begin("F05", f"bombs, entity expansion, loops, a PDF of {PAGES:,} pages")
    drops = cluster.open_inbox(more=_READERS)
    scheduler = cluster.start_watching()
    drops.drop("first.txt", cluster.documents.text(1))
    drops.wait_until_delivered(1, 60, cluster.story)
    readers = readers_of(scheduler)

    for number, (name, (make, _)) in enumerate(HOSTILE.items(), start=2):
        drops.drop(name, make())
        drops.drop(f"honest-{number}.txt", cluster.documents.text(number))
    experiment.fault_is_over()

    drops.wait_until_delivered(len(HOSTILE) + HONEST, 240, cluster.story)
    longest, peak = cluster.value(_LONGEST), scheduler.peak_bytes // 1_048_576
    assert isinstance(longest, float)
    experiment.finish(
        Allowance(memory_megabytes=MEMORY_MEGABYTES),
        bound_seconds=WAITING_SECONDS + len(HOSTILE) * PROMISED_SECONDS,
        notes=f"longest {longest:.1f} s of 30, scheduler with readers at most {peak} MB",
    )
    outcomes = drops.outcomes()
    assert {
        name: outcomes[name] for name in HOSTILE if outcomes[name] not in HOSTILE[name][1]
    } == {}
    assert [name for name, outcome in outcomes.items() if outcome == "done"] != []
    assert sum(outcome == "done" for outcome in outcomes.values()) == HONEST
    assert longest < PROMISED_SECONDS
    assert readers.isdisjoint(readers_of(scheduler))
    assert cluster.count("SELECT count(*) FROM documents WHERE text LIKE '%root:%'") == 0


SCANS = 16
_OTHER_USER = 65_534
_POLLING_SECONDS = 0.5
_POLLING = f"polling_seconds = {_POLLING_SECONDS}"
# The pause after as many failures as there are scans.
_PAUSE_SECONDS = 16.0
# Without these capabilities, permissions apply to root as well.
_RIGHTS = "-dac_override,-dac_read_search,-fowner"


def without_rights() -> tuple[str, ...]:
    """Return a command that starts a process subject to permissions; skip if there is none."""
    if os.geteuid() != 0:
        return ()
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("root needs setpriv to start a process that is subject to permissions")
    return program, "--bounding-set", _RIGHTS


def reported(scheduler: Member) -> Counter[str]:
    """Return how often each entry was reported as refused or postponed."""
    lines = scheduler.text().splitlines()
    told = [line for line in lines if '"inbox.refused"' in line or '"inbox.postponed"' in line]
    return Counter(Path(line.split('"file": "')[1].split('"')[0]).name for line in told)


def forbid(drops: Drops) -> dict[Path, int]:
    """Remove permissions; return the original mode of each path."""
    inbox, done = drops.folders.inbox, drops.folders.done
    done.mkdir()
    closed = {inbox / "secret.txt": 0, inbox / "closed": 0, inbox / "fixed": 0o555, done: 0o555}
    before = {path: path.stat().st_mode for path in closed}
    for path, mode in closed.items():
        path.chmod(mode)
    return before


@pytest.mark.thorough
def test_files_without_permission_are_reported_once(
    cluster: Cluster, experiment: Experiment
) -> None:
    """F08: each is reported once in many scans, and is processed after its repair."""
    experiment.begin("F08", "chmod 000; folders not readable, not writable; done/ not writable")
    cluster.members.prefix = without_rights()
    drops = cluster.open_inbox(_POLLING)
    names = ("secret.txt", "closed/inner.txt", "fixed/stays.txt", "plain.txt", "other.txt")
    paths = [drops.drop(name, cluster.documents.text(at)) for at, name in enumerate(names)]
    rights = forbid(drops)
    if os.geteuid() == 0:
        os.chown(paths[-1], _OTHER_USER, _OTHER_USER)  # a file of another user, which is readable

    scheduler = cluster.start_watching()
    cluster.wait_for("SELECT count(*) = 3 FROM results")
    wait_until(lambda: len(reported(scheduler)) == len(names), 60, "all is reported")
    time.sleep(SCANS * _POLLING_SECONDS)  # noqa: TID251 - scans that must not report again
    told, taken = reported(scheduler), cluster.count("SELECT count(*) FROM inbox_files")
    for path, mode in rights.items():
        path.chmod(mode)
    experiment.fault_is_over()

    drops.wait_until_delivered(len(names), 90, cluster.story)
    experiment.finish(
        bound_seconds=_PAUSE_SECONDS + WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"each reported once in {SCANS} scans",
    )
    assert set(told.values()) == {1}, told
    assert {"secret.txt", "closed", "stays.txt"} < set(told)
    assert taken == 3
    assert set(drops.outcomes().values()) == {"done"}
