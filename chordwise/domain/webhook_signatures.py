"""Webhook signatures according to Standard Webhooks 1.0.0, with HMAC-SHA256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

PREFIX = "whsec_"
_MIN_BYTES = 24
_MAX_BYTES = 64


def key_of(secret: str) -> bytes:
    """Decode the key of a secret: Base64, with or without its prefix.

    Raises:
        ValueError: It is not Base64, or not of 24 to 64 bytes; the message does not contain it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"not {_MIN_BYTES} to {_MAX_BYTES} bytes in base64")
    return key


def signed_headers(key: bytes, identity: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """Return the headers of a request: its id, the same in each attempt, time, and signature."""
    content = f"{identity}.{timestamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
