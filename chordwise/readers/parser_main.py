"""The parser process: receives files on its standard input, and answers one after another.

It is started by `parser_process` and has no access to settings, secrets and file paths.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, assert_never

from chordwise.domain import document_flags
from chordwise.domain.document_flags import Flag
from chordwise.domain.json_values import (
    JsonObject,
    as_json,
    as_object,
    integer,
    listed,
    number,
    strings,
    text,
)
from chordwise.domain.text_normalization import FEW, NormalizedText, normalize
from chordwise.errors import ReadError
from chordwise.readers import failures, frames, limits, scans
from chordwise.readers.contents import SLICE_BYTES
from chordwise.readers.format import FORMATS
from chordwise.readers.formats import pdf
from chordwise.readers.read_documents import decoded, line
from chordwise.readers.reader_output import (
    Columns,
    ContainedFile,
    Extracted,
    Extraction,
    Ocr,
    PageText,
    PictureLimits,
    ReadOptions,
    Unread,
    encoded_places,
    leaves_out_unseen,
)
from chordwise.readers.text_extraction import extract

_TITLE_CHARACTERS = 1_000
_MAX_UNSEEN = 20


def main() -> None:
    """Serve until the parent closes the channel."""
    list(FORMATS.values())  # imports them, before the memory is limited
    limits.limit_process(int(sys.argv[1]))
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        try:
            frames.send(channel, {"ready": True}, b"")
            while True:
                _serve(channel)
        except ConnectionError:
            return
        except MemoryError:
            # Out of memory outside of the parser: no answer can be sent.
            sys.exit(limits.OUT_OF_MEMORY_STATUS)


def _serve(channel: socket.socket) -> None:
    with frames.receive_file(channel) as file:
        request, _ = frames.receive(channel, 0)
        seconds = number(request["timeout_seconds"]) or 0
        limits.limit_file(seconds)
        for header, body in _replies(request, file):
            # The limit applies to each answer, without the time that the parent needs to store it.
            limits.release_file()
            frames.send(channel, header, body)
            limits.limit_file(seconds)
        limits.release_file()


def _replies(request: JsonObject, file: BinaryIO) -> Iterator[tuple[JsonObject, bytes]]:
    try:
        if page := integer(request["page"]):
            yield _picture(file.read(), page)
            return
        max_bytes = integer(request["max_text_bytes"]) or 0
        leaves_out_unseen.set(bool(request["leaves_out_unseen"]))
        known = as_object(request["known"])
        if request["is_text"]:
            found: Extracted | Iterator[Extraction | PageText] = Extracted(
                text=decoded(file.read()), media_type=""
            )
        else:
            found = extract(file, text(request["name"]), _options_of(request))
        if isinstance(found, Extracted):
            header, body = _success(found, max_bytes, known)
            yield {**header, "last": True}, body
            return
        for each in found:
            yield from _answer(each, max_bytes)
        yield {"end": True, "last": True}, b""
    except ReadError as error:
        yield _last(error), b""
    except MemoryError:
        yield _last(failures.out_of_memory()), b""
    except Exception as error:  # noqa: BLE001 - the outermost shell: parsers raise anything
        what = f"cannot be read: its parser stopped with {type(error).__name__}."
        yield _last(failures.malformed(what)), b""


def _picture(data: bytes, page: int) -> tuple[JsonObject, bytes]:
    is_picture = bool(scans.picture_kind(data))
    found = scans.picture_of(data, page) if is_picture else pdf.picture_of(data, page)
    return {"width": found.width, "height": found.height, "last": True}, bytes(found.pixels)


def _options_of(request: JsonObject) -> ReadOptions:
    folder, pages = text(request["ocr_data"]), integer(request["shown_pages"]) or 0
    edge = integer(request["edge_pixels"]) or 0
    return ReadOptions(
        ocr=Ocr(data=folder, languages=text(request["ocr_languages"])) if folder else None,
        shown=PictureLimits(max_pages=pages, max_edge_pixels=edge) if pages else None,
        max_characters=integer(request["max_characters"]) or 0,
        max_part_bytes=integer(request["max_part_bytes"]) or 0,
        columns=Columns(text=text(request["text_column"]), identity=text(request["id_column"])),
    )


def _answer(found: Extraction | PageText, max_bytes: int) -> Iterator[tuple[JsonObject, bytes]]:
    if isinstance(found, PageText):
        yield _page(found)
        return
    place = _cut(found.place)
    try:
        match found:
            case Extracted():
                yield _success(found, max_bytes)
            case ContainedFile():
                label = _cut(found.label)
                yield {"part": True, "place": place, "name": _cut(found.name), "label": label}, b""
                for piece in found.pieces:
                    for start in range(0, len(piece), SLICE_BYTES):
                        yield {"piece": True}, piece[start : start + SLICE_BYTES]
                yield {"complete": True}, b""
            case Unread():
                raise found.error
            case _:
                assert_never(found)
    except ReadError as error:
        yield {**_failure(error), "place": place}, b""


def _last(error: ReadError) -> JsonObject:
    return {**_failure(error), "last": True}


def _success(
    extracted: Extracted, max_bytes: int, known: JsonObject | None = None
) -> tuple[JsonObject, bytes]:
    """Return a normalized and scanned text; `known` replaces what the file says about it."""
    normalized = normalize(extracted.text)
    offset = normalized.offsets() if extracted.unseen_at or extracted.places else None
    header: JsonObject = {
        "media_type": extracted.media_type,
        "place": _cut(extracted.place),
        "title": _cut(extracted.title),
        "encoding": extracted.encoding,
        "pages": extracted.pages,
        "pages_unread": extracted.pages_unread,
        "pages_scanned": extracted.pages_scanned,
        "invisible_characters": extracted.invisible_characters,
        "unseen": [_cut(each) for each in extracted.unseen[:_MAX_UNSEEN]],
        "unseen_at": [offset(at) if offset else at for at in extracted.unseen_at[:_MAX_UNSEEN]],
        "is_covered": extracted.is_covered,
        "left_out": [_cut(each) for each in extracted.left_out[:_MAX_UNSEEN]],
        **(known or {}),
        "nul_removed": normalized.nul_removed,
        "surrogates_replaced": normalized.surrogates_replaced,
        "line_ends_changed": normalized.line_ends_changed,
        "invisible_removed": normalized.invisible_removed,
        "hiding_removed": normalized.hiding_removed,
    }
    header["flags"] = as_json(_flags(normalized, header))
    body = normalized.text.encode()
    if len(body) > max_bytes:
        raise failures.too_much_text(max_bytes)
    described = encoded_places(extracted.places, offset) if extracted.places else b""
    if len(body) + len(described) > max_bytes:
        described = b""
    return {**header, "text_bytes": len(body)}, body + described


def _flags(normalized: NormalizedText, header: JsonObject) -> Sequence[Flag]:
    is_flagged = header["is_covered"] or (integer(header["invisible_characters"]) or 0) > FEW
    unseen = strings(header["unseen"]) if is_flagged else []
    return document_flags.flags(
        normalized.text,
        [normalize(each).text for each in unseen],
        normalized.runs,
        [line(each) for each in strings(header["left_out"])],
        [integer(each) or 0 for each in listed(header["unseen_at"])],
    )


def _page(page: PageText) -> tuple[JsonObject, bytes]:
    header: JsonObject = {"page": page.number, "width": page.width, "height": page.height}
    if page.picture is not None:
        pixels: JsonObject = {"pixels": [page.picture.width, page.picture.height]}
        return {**header, **pixels}, page.picture.data
    body = page.text.encode("utf-8", "surrogatepass")
    return {**header, "text_bytes": len(body)}, body + page.layout


def _failure(error: ReadError) -> JsonObject:
    return {
        "what": error.what,
        "hint": error.hint,
        "outcome": error.outcome,
        "reason": error.reason,
    }


def _cut(name: str) -> str:
    return name[:_TITLE_CHARACTERS]


if __name__ == "__main__":
    main()
