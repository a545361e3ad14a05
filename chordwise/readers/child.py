"""The parser process: takes files on its standard input, one after the other, and answers each.

Started by `parser_process`; it knows no settings, no secrets and no paths of files.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import assert_never

from chordwise.domain.json_values import JsonObject, number, text
from chordwise.errors import ReadError
from chordwise.readers import failures, frames, limits
from chordwise.readers.extracted import Columns, Extracted, Extraction, Ocr, Part, Unread, Wanted
from chordwise.readers.extraction import extract

_TITLE_CHARACTERS = 1_000
_ANY_LENGTH = 1 << 40


def main() -> None:
    """Serve until the parent closes the channel."""
    limits.limit_process(int(sys.argv[1]))
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        try:
            frames.send(channel, {"ready": True}, b"")
            while True:
                _serve(channel)
        except ConnectionError:
            return
        except MemoryError:
            # Taking the file or sending its text was too much: nothing can be said but this.
            sys.exit(limits.OUT_OF_MEMORY_STATUS)


def _serve(channel: socket.socket) -> None:
    request, data = frames.receive(channel, _ANY_LENGTH)
    seconds = number(request["timeout_seconds"]) or 0
    limits.limit_file(seconds)
    for header, body in _answers(request, data):
        # Waiting for a parent that stores what it has is no fault; each answer has its own time.
        limits.release_file()
        frames.send(channel, header, body)
        limits.limit_file(seconds)
    limits.release_file()


def _answers(request: JsonObject, data: bytes) -> Iterator[tuple[JsonObject, bytes]]:
    """Yield an answer for each thing in the file; the last one says that it is."""
    try:
        found = extract(data, text(request["name"]), _wanted(request))
        if isinstance(found, Extracted):
            header, body = _success(found)
            yield {**header, "last": True}, body
            return
        yield from map(_answer, found)
        yield {"end": True, "last": True}, b""
    except ReadError as error:
        yield _last(error), b""
    except MemoryError:
        yield _last(failures.out_of_memory()), b""
    except Exception as error:  # noqa: BLE001 - the outermost shell: parsers raise anything
        yield _last(_surprise(error)), b""


def _wanted(request: JsonObject) -> Wanted:
    folder = text(request["ocr_data"])
    return Wanted(
        ocr=Ocr(data=folder, languages=text(request["ocr_languages"])) if folder else None,
        max_characters=int(number(request["max_characters"]) or 0),
        max_part_bytes=int(number(request["max_part_bytes"]) or 0),
        columns=Columns(text=text(request["text_column"]), identity=text(request["id_column"])),
    )


def _answer(found: Extraction) -> tuple[JsonObject, bytes]:
    match found:
        case Extracted():
            return _success(found)
        case Part():
            return {"part": True, "place": _cut(found.place), "name": _cut(found.name)}, found.data
        case Unread():
            return {**_failure(found.error), "place": _cut(found.place)}, b""
        case _:
            assert_never(found)


def _last(error: ReadError) -> JsonObject:
    return {**_failure(error), "last": True}


def _success(extracted: Extracted) -> tuple[JsonObject, bytes]:
    header: JsonObject = {
        "media_type": extracted.media_type,
        "place": _cut(extracted.place),
        "title": _cut(extracted.title),
        "encoding": extracted.encoding,
        "pages": extracted.pages,
        "pages_unread": extracted.pages_unread,
        "pages_scanned": extracted.pages_scanned,
        "invisible_characters": extracted.invisible_characters,
    }
    return header, extracted.text.encode("utf-8", "surrogatepass")


def _failure(error: ReadError) -> JsonObject:
    return {
        "what": error.what,
        "hint": error.hint,
        "outcome": error.outcome,
        "reason": error.reason,
    }


def _cut(name: str) -> str:
    return name[:_TITLE_CHARACTERS]


def _surprise(error: Exception) -> ReadError:
    return failures.malformed(f"cannot be read: its parser stopped with {type(error).__name__}.")


if __name__ == "__main__":
    main()
