"""The protocol between a reader and its parser process: what is sent over a socket.

The reader sends the descriptor of an open file with a request, and receives replies: texts, files
in the file, pages and failures. A frame is a JSON header, followed by bytes. A hostile file may
control the process, so that replies are validated. Functions that send and receive raise a
`TimeoutError` after a deadline on the monotonic clock (`None` waits without limit), and a
`ConnectionError` if the peer is gone or sends invalid data.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import BinaryIO

from chordwise.domain import document_flags, places, text_normalization
from chordwise.domain.document_flags import Flag
from chordwise.domain.json_values import (
    JsonObject,
    JsonValue,
    as_json,
    as_object,
    integer,
    listed,
    strings,
    text,
)
from chordwise.domain.places import MAX_LABEL, Place
from chordwise.domain.states import FAILED_INTAKES, IntakeOutcome
from chordwise.domain.text_normalization import FEW, NormalizedText, normalize
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.machine import MEGABYTE
from chordwise.readers import contents, failures
from chordwise.readers.contents import SLICE_BYTES, Content
from chordwise.readers.reader_output import (
    Columns,
    Extracted,
    Extraction,
    PageText,
    ReadOptions,
    Unread,
    encoded_places,
)

_LENGTHS = struct.Struct("!IQ")
_HEADER_BYTES = 1024 * 1024
_SHORT_BODY_BYTES = 64 * 1024
_FILE = b"F"
# 2,576 x 2,576 gray pixels always take less.
_MAX_PICTURE_BYTES = 8 * MEGABYTE


def send(
    channel: socket.socket, header: JsonObject, body: bytes, deadline: float | None = None
) -> None:
    """Send one frame."""
    encoded = json.dumps(header).encode()
    start = _LENGTHS.pack(len(encoded), len(body)) + encoded
    # A short body is sent with its header; a long one is not copied for this.
    pieces = (start + body,) if len(body) <= _SHORT_BODY_BYTES else (start, body)
    for piece in pieces:
        _limit(channel, deadline)
        channel.sendall(piece)


def receive(
    channel: socket.socket, body_bytes: int, deadline: float | None = None
) -> tuple[JsonObject, bytearray]:
    """Receive the next frame, whose body may have at most `body_bytes` bytes."""
    header_length, body_length = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size, deadline))
    if header_length > _HEADER_BYTES or body_length > body_bytes:
        raise ConnectionError("a frame is longer than allowed")
    try:
        header = json.loads(_exactly(channel, header_length, deadline))
    except (ValueError, RecursionError) as error:
        raise ConnectionError("a header is not JSON") from error
    if not isinstance(header, dict):
        raise ConnectionError("a header is not an object")
    return as_object(header), _exactly(channel, body_length, deadline)


def _exactly(channel: socket.socket, length: int, deadline: float | None) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        _limit(channel, deadline)
        received = channel.recv_into(view)
        if not received:
            raise ConnectionError("the other side closed the channel")
        view = view[received:]
    return buffer


def _limit(channel: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        channel.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)


def send_request(
    channel: socket.socket, file: BinaryIO, options: ReadOptions, deadline: float
) -> None:
    """Send an open file with the options of reading it."""
    _limit(channel, deadline)
    socket.send_fds(channel, [_FILE], [file.fileno()])
    send(channel, asdict(options), b"", deadline)


def receive_request(channel: socket.socket) -> tuple[BinaryIO, ReadOptions]:
    """Receive the next file, positioned at its beginning, and the options of reading it."""
    mark, descriptors, _, _ = socket.recv_fds(channel, len(_FILE), 1)
    if mark != _FILE or len(descriptors) != 1:
        raise ConnectionError("the other side closed the channel")
    file = os.fdopen(descriptors[0], "rb")
    file.seek(0)
    # As `asdict` wrote it, so that the types of the values are right.
    options, _ = receive(channel, 0)
    columns = Columns(**as_object(options.pop("columns")))  # type: ignore[arg-type]
    return file, ReadOptions(columns=columns, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A header that describes a text, part, page or failure, with the text, picture or part."""

    header: JsonObject
    text: bytearray = field(default_factory=bytearray)
    places: bytes = b""
    part: Content | None = None


def receive_reply(channel: socket.socket, options: ReadOptions, deadline: float) -> Reply:
    """Receive the next reply; a part is written to a file while it is received.

    Raises:
        ReadError: There is no space for a part.
    """
    text_bytes = 0 if options.page else options.max_text_bytes
    header, body = receive(channel, max(_MAX_PICTURE_BYTES, text_bytes), deadline)
    if not header.get("part"):
        size = header.get("text_bytes")
        end = size if isinstance(size, int) else len(body)
        described = bytes(body[end:])
        del body[end:]
        return Reply(header=header, text=body, places=described)
    last: JsonObject = {}
    content = contents.spooled(_pieces(channel, last, options.max_part_bytes, deadline))
    if last.get("complete"):
        return Reply(header=header, part=content)
    content.close()
    return Reply(header=last)


def _pieces(
    channel: socket.socket, last: JsonObject, bytes_left: int, deadline: float
) -> Iterator[bytearray]:
    while True:
        header, piece = receive(channel, SLICE_BYTES, deadline)
        if not header.get("piece"):
            last.update(header)
            return
        bytes_left -= len(piece)
        if bytes_left < 0:
            raise ConnectionError("a part is longer than allowed")
        yield piece


_TITLE_CHARACTERS = 1_000
_MAX_UNSEEN = 20


def frames_of(
    extraction: Extraction | PageText, options: ReadOptions
) -> Iterator[tuple[JsonObject, bytes]]:
    """Yield the frames that send an item of a file."""
    if isinstance(extraction, PageText):
        yield _page_frame(extraction)
        return
    place = _cut(extraction.place)
    try:
        if isinstance(extraction, Unread):
            raise extraction.error
        if isinstance(extraction, Extracted):
            yield text_frame(extraction, options)
            return
        name, label = _cut(extraction.name), _cut(extraction.label)
        yield {"part": True, "place": place, "name": name, "label": label}, b""
        bytes_left = options.max_part_bytes
        for piece in extraction.pieces:
            bytes_left -= len(piece)
            if bytes_left < 0:
                raise failures.larger_than(options.max_part_bytes // MEGABYTE)
            for start in range(0, len(piece), SLICE_BYTES):
                yield {"piece": True}, piece[start : start + SLICE_BYTES]
        yield {"complete": True}, b""
    except ReadError as error:
        yield {**failure_header(error), "place": place}, b""


def text_frame(extracted: Extracted, options: ReadOptions) -> tuple[JsonObject, bytes]:
    """Return the frame of a normalized and scanned text; `options.known` replaces its metadata.

    Raises:
        ReadError: It is longer than the limit.
    """
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
        "unseen": [_cut(passage) for passage in extracted.unseen[:_MAX_UNSEEN]],
        "unseen_at": [offset(at) if offset else at for at in extracted.unseen_at[:_MAX_UNSEEN]],
        "is_covered": extracted.is_covered,
        "is_partial": extracted.is_partial,
        "fields_unread": extracted.fields_unread,
        "left_out": [_cut(passage) for passage in extracted.left_out[:_MAX_UNSEEN]],
        **options.known,
        **{name: getattr(normalized, name) for name in _CHANGES},
    }
    header["flags"] = as_json(_flags(normalized, header))
    body = normalized.text.encode()
    if len(body) > options.max_text_bytes:
        raise failures.too_large(
            f"holds more than {options.max_text_bytes >> 20} MB of text.",
            "Split it, or give Chordwise more memory.",
            "too_many_characters",
        )
    described = encoded_places(extracted.places, offset) if extracted.places else b""
    if len(body) + len(described) > options.max_text_bytes:
        described = b""
    return {**header, "text_bytes": len(body)}, body + described


def _flags(normalized: NormalizedText, header: JsonObject) -> Sequence[Flag]:
    is_flagged = header["is_covered"] or (integer(header["invisible_characters"]) or 0) > FEW
    unseen = strings(header["unseen"]) if is_flagged else []
    return document_flags.flags(
        normalized.text,
        [normalize(passage).text for passage in unseen],
        normalized.runs,
        [_line(passage) for passage in strings(header["left_out"])],
        [integer(position) or 0 for position in listed(header["unseen_at"])],
    )


def _page_frame(page: PageText) -> tuple[JsonObject, bytes]:
    header: JsonObject = {"page": page.number, "width": page.width, "height": page.height}
    if page.picture is not None:
        pixels: JsonObject = {"pixels": [page.picture.width, page.picture.height]}
        return {**header, **pixels}, page.picture.data
    body = page.text.encode("utf-8", "surrogatepass")
    return {**header, "text_bytes": len(body)}, body + page.layout


def failure_header(error: ReadError) -> JsonObject:
    """Return the header that reports a failure."""
    return {
        "what": error.what,
        "hint": error.hint,
        "outcome": error.outcome,
        "reason": error.reason,
    }


def _cut(name: str) -> str:
    return name[:_TITLE_CHARACTERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """A normalized text and its metadata; the counts say how often normalization changed something.

    `pages_unread` counts damaged pages, `pages_scanned` pictures of pages that were not
    recognized, `fields_unread` the fields of a form, and `pages_transcribed` the pages read by
    `transcribed_by`, a model or Tesseract.
    `invisible_characters` are those that a PDF or a Word document does not show; `hiding_removed`
    is a part of `invisible_removed`. `places` include the place in a mail. `is_partial` is whether
    the file shows more than its text.
    """

    text: str
    media_type: str
    title: str = ""
    encoding: str | None = None
    pages: int | None = None
    pages_unread: int = 0
    pages_scanned: int = 0
    pages_transcribed: int = 0
    fields_unread: int = 0
    is_partial: bool = False
    transcribed_by: str = ""
    invisible_characters: int = 0
    nul_removed: int = 0
    surrogates_replaced: int = 0
    line_ends_changed: int = 0
    invisible_removed: int = 0
    hiding_removed: int = 0
    flags: tuple[Flag, ...] = ()
    places: Sequence[Place] = ()

    @property
    def pages_unread_reason(self) -> str:
        """How many pages were not read; empty if all were."""
        kinds = ((self.pages_unread, "damaged"), (self.pages_scanned, "scanned"))
        unread = self.pages_unread + self.pages_scanned
        if not unread:
            return ""
        said = ", ".join(f"{number:,} {kind}" for number, kind in kinds if number)
        were = "was" if unread == 1 else "were"
        return f"{unread:,} of {self.pages or unread:,} pages {were} not read ({said})."

    @property
    def fields_unread_reason(self) -> str:
        """How many fields of a form were not read; empty if there are none."""
        fields = self.fields_unread
        if not fields:
            return ""
        were = "field of its form was" if fields == 1 else "fields of its form were"
        return f"{fields:,} {were} not read."

    @property
    def unseen_reason(self) -> str:
        """Why the invisible text needs review; empty if it does not."""
        return text_normalization.review_reason(
            unseen=self.invisible_characters,
            removed=self.invisible_removed,
            hiding=self.hiding_removed,
        )

    @property
    def review_reason(self) -> str:
        """Why the document needs review; empty if it does not."""
        of_text = document_flags.review_reason(self.flags, self.unseen_reason)
        reasons = (self.pages_unread_reason, self.fields_unread_reason, of_text)
        return " ".join(filter(None, reasons))


_CHANGES = (
    "nul_removed",
    "surrogates_replaced",
    "line_ends_changed",
    "invisible_removed",
    "hiding_removed",
)
_COUNTS = (
    *("pages_unread", "pages_scanned", "pages_transcribed", "fields_unread"),
    *("invisible_characters", *_CHANGES),
)


def text_of(reply: Reply, max_characters: int, within: str = "") -> ReadText:
    """Validate a reply, and return its text; `within` is the label of a mail around it.

    Raises:
        ReadError: It reports a failure, has no text or too much, or its flags are invalid.
    """
    header = reply.header
    if "what" in header:
        raise failure(header)
    content = reply.text.decode("utf-8", "replace").replace("\0", "")
    if len(content) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not content or content.isspace():
        raise failures.empty()
    try:
        flags = document_flags.from_json(header.get("flags"))
    except (ValueError, KeyError) as error:
        raise failures.malformed("cannot be read: its parser sent invalid flags.") from error
    counts = {name: _count(header.get(name)) or 0 for name in _COUNTS}
    return ReadText(
        text=content,
        media_type=_line(header.get("media_type")),
        title=_line(header.get("title")),
        encoding=_line(header.get("encoding")) or None,
        pages=_count(header.get("pages")),
        transcribed_by=_line(header.get("transcribed_by")),
        flags=tuple(replace(flag, excerpt=_line(flag.excerpt)) for flag in flags),
        places=_places(reply.places, within, len(content)),
        # A page that is missing or transcribed from a picture may have shown anything.
        is_partial=bool(header.get("is_partial"))
        or bool(counts["pages_unread"] or counts["pages_scanned"] or header.get("transcribed_by")),
        **counts,
    )


def _places(encoded: bytes, within: str, length: int) -> Sequence[Place]:
    decoded_places = places.decode(encoded, length) if encoded else []
    labeled = [replace(place, label=_line(place.label)[:MAX_LABEL]) for place in decoded_places]
    return places.nest_in_message(within, labeled, length) if within else labeled


def failure(header: JsonObject) -> ReadError:
    """Return the failure that a parser process reports."""
    outcome = text(header.get("outcome"))
    known = outcome in FAILED_INTAKES
    return ReadError(
        printable(text(header.get("what"))),
        printable(text(header.get("hint"))),
        IntakeOutcome(outcome) if known else IntakeOutcome.UNREADABLE,
        printable(text(header.get("reason"))),
    )


def _line(value: JsonValue) -> str:
    """Return a name or a title on one line, in characters that a database accepts."""
    name = text(value)
    is_plain = name.isascii() and name.isprintable()
    return " ".join((name if is_plain else normalize(name).text).split())


def decoded(body: bytes | bytearray) -> str:
    """Decode the text from a parser process, keeping lone surrogates, which are counted later."""
    try:
        return body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace")


def _count(value: JsonValue) -> int | None:
    count = integer(value)
    return count if count is not None and count >= 0 else None
