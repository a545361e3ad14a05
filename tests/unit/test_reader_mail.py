"""E-mail messages give their headers and the body that a person would see."""

from __future__ import annotations

import pytest

from chordwise.errors import ReadError
from chordwise.readers import mail

LIMIT = 1_000_000


HEADERS = (
    "From: =?utf-8?B?Wm/Dqw==?= <zoe@example.org>\n"
    "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n"
    "MIME-Version: 1.0\n"
)


def message(content: str) -> bytes:
    """Return a message with encoded headers and this content, its own headers first."""
    return f"{HEADERS}{content}".encode()


def multipart(kind: str, *parts: str) -> str:
    """Return a body of several parts."""
    bodies = "".join(f"--{kind}-b\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary={kind}-b\n\n{bodies}--{kind}-b--\n"


PLAIN = "Content-Type: text/plain; charset=utf-8\n\nHello\n"
HTML = "Content-Type: text/html\n\n<p>One</p><script>x</script><p>Two</p>\n"
ATTACHMENT = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nx\n"


def test_headers_come_first() -> None:
    """Encoded headers are decoded, and the subject is the title."""
    extracted = mail.read(message(PLAIN), LIMIT)

    assert extracted.text == "From: Zoë <zoe@example.org>\nSubject: Grüße\n\nHello"
    assert extracted.title == "Grüße"


def test_of_alternatives_one_is_read_and_attachments_are_named() -> None:
    """A body is not read twice, and an attachment is not lost in silence."""
    content = multipart("mixed", multipart("alternative", PLAIN, HTML), ATTACHMENT)

    text = mail.read(message(content), LIMIT).text

    assert "One" not in text
    assert text.endswith("Hello\n\nAttachment: a.pdf")


def test_an_html_body_is_read_as_html() -> None:
    """A message that has only HTML gives its visible text."""
    assert mail.read(message(HTML), LIMIT).text.endswith("\n\nOne\n\nTwo")


def test_an_encrypted_message_is_encrypted() -> None:
    """S/MIME content cannot be read, and is not given as text."""
    data = b"Subject: x\nContent-Type: application/pkcs7-mime\n\nMIAGCSqGSIb3\n"

    with pytest.raises(ReadError) as failure:
        mail.read(data, LIMIT)

    assert failure.value.outcome == "encrypted"


def test_broken_headers_are_shown_as_they_are() -> None:
    """A header in an unknown encoding does not cost the message."""
    data = b"Subject: =?no-such?Q?x?=\nContent-Type: text/plain; charset=nonsense\n\nBody"

    assert mail.read(data, LIMIT).text == "Subject: =?no-such?Q?x?=\n\nBody"
