"""What a reader's process says of a text is checked before it is believed."""

from __future__ import annotations

from chordwise.readers.documents import checked

LIMIT = 1_000


def test_half_characters_are_replaced_and_counted() -> None:
    """Each lone surrogate becomes one replacement character, and its number is known."""
    body = "A\ud800B\udfffC".encode("utf-8", "surrogatepass")

    found = checked({"media_type": "text/plain"}, body, LIMIT)

    assert found.text == "A\ufffdB\ufffdC"
    assert found.surrogates_replaced == 2


def test_bytes_that_are_no_text_at_all_do_no_harm() -> None:
    """A process that was taken over may send anything; what comes of it can be stored."""
    found = checked({}, b"A\xff\xfe\x00B", LIMIT)

    assert found.text.encode().isascii() is False
    assert "\0" not in found.text
