"""Reads an e-mail message: its main headers and its body; attachments are only named."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message

from chordwise.readers import encodings, failures, html
from chordwise.readers.extracted import Extracted

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted")


def read(data: bytes, max_characters: int) -> Extracted:
    """Return headers and body; of a body in several forms the plain one, else the HTML.

    Raises:
        ReadError: The message is encrypted, empty, or longer than the limit.
    """
    # The lenient policy: the modern one raises on the headers that real mail programs write.
    message = email.message_from_bytes(data)
    if any(part.get_content_type() in _ENCRYPTED for part in message.walk()):
        raise failures.encrypted()
    bodies = [body for part in _shown(message) if (body := _body(part, max_characters)).strip()]
    headers = [f"{name}: {value}" for name in _HEADERS if (value := _header(message, name))]
    attachments = [f"Attachment, not read: {name}" for name in _attachments(message)]
    if not bodies and not headers:
        raise failures.empty()
    text = "\n\n".join("\n".join(lines) for lines in (headers, bodies, attachments) if lines)
    return Extracted(text=text, media_type="message/rfc822", title=_header(message, "Subject"))


def _shown(message: Message) -> Iterator[Message]:
    """Yield the parts that a mail program shows, one of each set of alternatives."""
    kind = message.get_content_type()
    if message.get_content_disposition() == "attachment":
        return
    if not message.is_multipart():
        if kind in ("text/plain", "text/html"):
            yield message
        return
    parts = [part for part in message.get_payload() if isinstance(part, Message)]
    shown = [list(_shown(part)) for part in parts]
    if kind == "multipart/alternative":
        shown = [group for group in shown if group][:1]
    for group in shown:
        yield from group


def _body(part: Message, max_characters: int) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return ""
    text = encodings.decode(payload, part.get_content_charset("")).text
    if part.get_content_type() == "text/html":
        return html.visible_text(text, max_characters).text.text()
    return text.strip()


def _attachments(message: Message) -> list[str]:
    return [_decoded(name) for part in message.walk() if (name := part.get_filename())]


def _header(message: Message, name: str) -> str:
    return _decoded(str(message.get(name, "")))


def _decoded(value: str) -> str:
    try:
        text = str(make_header(decode_header(value)))
    except (LookupError, ValueError, HeaderParseError):
        text = value
    return " ".join(text.split())
