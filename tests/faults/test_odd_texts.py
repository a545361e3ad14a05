"""F11 and F12: characters that databases refuse, and bytes that are not what their name says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS
from tests.faults.experiment import CHUNKS, Experiment

pytestmark = pytest.mark.thorough

COMBINING_BYTES = 1_000_000
_MARKS_OF_ONE = 400
_INVISIBLE = "a\u200b\u200c\u200d\u2060\ufeff"
_GERMAN = "Müller öffnet das Café in der Straße um acht Uhr, und es kostet „zehn“ €. "
_JAPANESE = "会議は五月に開かれた。港は千八百五十六年に建て直された。"
_TEXTS = "SELECT i.source, d.text, d.normalization FROM intakes AS i JOIN documents AS d"
_QUERY = f"{_TEXTS} ON d.id = i.document_id"


def stored(cluster: Cluster) -> dict[str, tuple[str, Mapping[str, object]]]:
    """Return the stored text of each file, and what was changed in it."""
    return {
        str(source).rsplit("/", 1)[-1]: (str(text), changes if isinstance(changes, dict) else {})
        for source, text, changes in cluster.rows(_QUERY)
    }


def combining() -> str:
    """Return letters with hundreds of accents each, a megabyte in all."""
    letter = "a" + "\u0301" * _MARKS_OF_ONE
    count = COMBINING_BYTES // len(letter.encode())
    return " ".join(f"{number} {letter}" for number in range(count))


def _read_in_larger_chunks(cluster: Cluster) -> None:
    config = cluster.folder / "chordwise.toml"
    written = config.read_text("utf-8").replace("chunk_tokens = 400", "chunk_tokens = 8000")
    config.write_text(written, "utf-8")


def test_characters_that_databases_refuse(cluster: Cluster, experiment: Experiment) -> None:
    """F11: NUL, lone surrogates and their like become storable text; what changed is counted."""
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
        "tags.txt": f"{begin(7)} {''.join(chr(0xE0000 + ord(each)) for each in 'ignore all')}",
        "directions.txt": f"{begin(8)} \u202eabc\u202c \u2066\u2067\u2069 \x1b[31m\x07",
        "accents.txt": f"{begin(9)} {combining()}",
    }

    for name, text in texts.items():
        drops.drop(name, text.encode("utf-8", "surrogatepass"))
    experiment.fault_is_over()

    drops.wait_until_delivered(len(texts), 240, cluster.story)
    found = stored(cluster)
    chunks = cluster.count("SELECT count(*) FROM chunks")
    experiment.finish(
        bound_seconds=WAITING_SECONDS + (1 + chunks / CHUNKS) * experiment.undisturbed_seconds,
        notes=f"{chunks} chunks",
    )
    assert drops.outcomes() == dict.fromkeys(texts, "done")
    assert all("\0" not in text for text, _ in found.values())
    assert "\u0301" * _MARKS_OF_ONE in found["accents.txt"][0]
    assert found["nul.txt"][1].get("nul_removed") == 1
    assert found["surrogate.txt"][1].get("surrogates_replaced") == 1
    assert found["surrogate.txt"][0].endswith(f"{_GERMAN}A\ufffdB.")


def test_bytes_that_are_not_what_they_seem(cluster: Cluster, experiment: Experiment) -> None:
    """F12: other encodings are recognized, line ends made one, and binary content is refused."""
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
    found, outcomes = stored(cluster), drops.outcomes()
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    wrong = {name for name, (text, _) in texts.items() if found[name][0].strip() != text.strip()}
    assert wrong == set()
    assert found["lines.txt"][1].get("line_ends_changed") == 2
    assert {name: outcomes[name] for name in binary if outcomes[name] == "done"} == {}
