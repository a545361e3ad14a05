"""E-mail messages give their headers and the body that a person would see."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from chordwise.errors import ReadError
from chordwise.readers import mail

LIMIT = 1_000_000


def message(body: str = "Hello") -> EmailMessage:
    """Return a message with a subject and a plain body."""
    built = EmailMessage()
    built["From"] = "Zoë <zoe@example.org>"
    built["Subject"] = "Grüße"
    built.set_content(body)
    return built


def test_headers_come_first() -> None:
    """Encoded headers are decoded, and the subject is the title."""
    extracted = mail.read(message().as_bytes(), LIMIT)

    assert extracted.text == "From: Zoë <zoe@example.org>\nSubject: Grüße\n\nHello"
    assert extracted.title == "Grüße"


def test_of_alternatives_the_plain_one_is_read_and_attachments_are_named() -> None:
    """A body is not read twice, and an attachment is not lost in silence."""
    built = message()
    built.add_alternative("<p>Hello <b>twice</b></p>", subtype="html")
    built.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="a.pdf")

    text = mail.read(built.as_bytes(), LIMIT).text

    assert "twice" not in text
    assert text.endswith("Hello\n\nAttachment, not read: a.pdf")


def test_an_html_body_is_read_as_html() -> None:
    """A message that has only HTML gives its visible text."""
    built = message()
    built.set_content("<p>One</p><script>x</script><p>Two</p>", subtype="html")

    assert mail.read(built.as_bytes(), LIMIT).text.endswith("\n\nOne\n\nTwo")


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
