"""The parser process: takes files on its standard input, one after the other, and answers each.

Started by `parser_process`; it knows no settings, no secrets and no paths of files.
"""

from __future__ import annotations

import os
import socket
import sys

from chordwise.domain.json_values import JsonObject, number, text
from chordwise.errors import ReadError
from chordwise.readers import failures, frames, limits
from chordwise.readers.extracted import Extracted
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
    limits.limit_file(number(request["timeout_seconds"]) or 0)
    header, body = _answer(request, data)
    frames.send(channel, header, body)
    limits.release_file()


def _answer(request: JsonObject, data: bytes) -> tuple[JsonObject, bytes]:
    limit = int(number(request["max_characters"]) or 0)
    try:
        return _success(extract(data, text(request["name"]), limit))
    except ReadError as error:
        return _failure(error), b""
    except MemoryError:
        return _failure(failures.out_of_memory()), b""
    except Exception as error:  # noqa: BLE001 - the outermost shell: parsers raise anything
        return _failure(_surprise(error)), b""


def _success(extracted: Extracted) -> tuple[JsonObject, bytes]:
    header: JsonObject = {
        "media_type": extracted.media_type,
        "title": extracted.title[:_TITLE_CHARACTERS],
        "encoding": extracted.encoding,
        "pages": extracted.pages,
        "pages_unread": extracted.pages_unread,
    }
    return header, extracted.text.encode("utf-8", "surrogatepass")


def _failure(error: ReadError) -> JsonObject:
    return {
        "what": error.what,
        "hint": error.hint,
        "outcome": error.outcome,
        "reason": error.reason,
    }


def _surprise(error: Exception) -> ReadError:
    return failures.malformed(f"cannot be read: its parser stopped with {type(error).__name__}.")


if __name__ == "__main__":
    main()
