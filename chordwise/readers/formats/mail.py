"""Reads an e-mail message: its main headers, its body, and the attached files."""

from __future__ import annotations

import email
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from email.errors import HeaderParseError, MessageError
from email.header import decode_header, make_header
from email.message import Message

from chordwise.domain import places
from chordwise.domain.places import MESSAGE
from chordwise.errors import ReadError
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, ascii_start, html, of_items
from chordwise.readers.reader_output import (
    ContainedFile,
    Extracted,
    Extraction,
    Naming,
    ReadOptions,
    Unread,
)

MEDIA_TYPE = "message/rfc822"
_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted")
_ALTERNATIVES = "multipart/alternative"


def documents(data: bytes, options: ReadOptions) -> Iterator[Extraction]:
    """Yield the text of the message, then its attachments."""
    # The lenient policy; the modern one raises on headers that real mail programs write.
    message = email.message_from_bytes(data)
    if any(part.get_content_type() in _ENCRYPTED for part in message.walk()):
        raise failures.encrypted()
    try:
        parts = _displayed_parts(message, options.max_characters)
        headers = {name: _decoded(str(message.get(name, ""))) for name in _HEADERS}
        names = [_file_name(part) for part in _attachments(message)]
        yield text_of_message(headers, parts, names, MESSAGE, media_type=MEDIA_TYPE)
    except ReadError as error:
        yield Unread(place="", error=error)
    naming = Naming()
    for part in _attachments(message):
        yield _attachment(part, naming)


def text_of_message(
    headers: Mapping[str, str],
    parts: Sequence[Extracted],
    attachments: Sequence[str],
    label: str,
    *,
    media_type: str,
    place: str = "",
) -> Extracted:
    """Return the headers, the parts of the body and the names of attachments as one text.

    Raises:
        ReadError: The message is empty.
    """
    listed = [f"{name}: {value}" for name, value in headers.items() if value]
    bodies = [body.text for body in parts if body.text.strip()]
    names = [f"Attachment: {name}" for name in attachments if name]
    if not bodies and not listed:
        raise failures.empty()
    text = "\n\n".join("\n".join(lines) for lines in (listed, bodies, names) if lines)
    return Extracted(
        text=text,
        places=places.nest_in_message(label, (), len(text)),
        media_type=media_type,
        title=headers["Subject"],
        place=place,
        invisible_characters=sum(part.invisible_characters for part in parts),
        unseen=tuple(passage for part in parts for passage in part.unseen),
        left_out=tuple(passage for part in parts for passage in part.left_out),
        is_partial=any(part.is_partial for part in parts),
    )


def _displayed_parts(message: Message, max_characters: int) -> list[Extracted]:
    """Return the body parts that a mail program displays (RFC 2046, 5.1.4)."""
    kind = message.get_content_type()
    if message.get_content_disposition() == "attachment":
        return []
    if not message.is_multipart():
        return [_body(message, max_characters)] if kind in ("text/plain", "text/html") else []
    step = -1 if kind == _ALTERNATIVES else 1
    parts = (_displayed_parts(part, max_characters) for part in _children(message)[::step])
    if kind == _ALTERNATIVES:
        return next((part for part in parts if any(body.text.strip() for body in part)), [])
    return [body for part in parts for body in part]


def _attachments(message: Message) -> Iterator[Message]:
    waiting = _children(message)[::-1]
    while waiting:
        part = waiting.pop()
        if _is_attached(part):
            yield part
        elif part.is_multipart():
            waiting.extend(_children(part)[::-1])


def _is_attached(part: Message) -> bool:
    kind = part.get_content_type()
    if kind in (
        *("application/pkcs7-signature", "application/x-pkcs7-signature"),
        "application/pgp-signature",
    ):
        return False
    if part.get_content_disposition() == "attachment":
        return True
    if part.is_multipart() or kind in ("text/plain", "text/html"):
        return False
    is_in_the_body = part.get_content_maintype() == "image" and "Content-ID" in part
    return bool(part.get_filename()) and not is_in_the_body


def _attachment(part: Message, naming: Naming) -> Extraction:
    extension = mimetypes.guess_extension(part.get_content_type()) or ""
    name = _file_name(part) or f"attachment{extension}"
    place = naming.place(name)
    try:
        data = _bytes_of(part)
    except (MessageError, ValueError, LookupError, AttributeError, TypeError):
        # The library raises these for some malformed messages that it does not handle.
        return Unread(place=place, error=failures.malformed("is a damaged attachment."))
    return ContainedFile(place=place, name=name, pieces=(data,), label=f"attachment {place}")


def _bytes_of(part: Message) -> bytes:
    if part.is_multipart():
        children = _children(part)
        is_message = part.get_content_type() == MEDIA_TYPE and len(children) == 1
        return (children[0] if is_message else part).as_bytes()
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _children(message: Message) -> list[Message]:
    if not message.is_multipart():
        return []
    return [part for part in message.get_payload() if isinstance(part, Message)]


def _body(part: Message, max_characters: int) -> Extracted:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return Extracted(text="", media_type=MEDIA_TYPE)
    text = encodings.decode(payload, part.get_content_charset("")).text
    if part.get_content_type() == "text/html":
        return html.extracted(html.visible_text(text, max_characters))
    return Extracted(text=text.strip(), media_type=MEDIA_TYPE)


def _file_name(part: Message) -> str:
    return _decoded(part.get_filename() or "")


def _decoded(value: str) -> str:
    try:
        text = str(make_header(decode_header(value)))
    except (LookupError, ValueError, HeaderParseError):
        text = value
    return " ".join(text.split())


MESSAGE_NAME = ".eml"
_START = re.compile(rb"(?:Return-Path|Received|Delivered-To|MIME-Version):[ \t]", re.IGNORECASE)
FORMAT = Format(
    "EML",
    of_items(documents),
    matches=lambda data, name: name == MESSAGE_NAME or bool(_START.match(ascii_start(data))),
    rank=3,
)
