"""Pictures of pages for models with vision."""

from __future__ import annotations

import base64
from dataclasses import dataclass

MEDIA_TYPE = "image/jpeg"
# Each provider scales a picture and counts its tiles or patches differently.
_PIXELS_PER_TOKEN = 750
"""As documented by Anthropic; patches of 32 x 32 pixels at OpenAI give about the same."""
_LEAST_PIXELS_PER_TOKEN = 14 * 14
"""One token for each patch of 14 x 14 pixels, the smallest patch of vision models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page of a document as JPEG; `number` counts pages from 1, the sizes are in pixels."""

    number: int
    data: bytes
    width: int
    height: int

    @property
    def base64(self) -> str:
        """Return the data in Base64, as in requests."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def estimated_tokens(self) -> int:
        """Return the approximate number of input tokens of the picture."""
        return -(-self.width * self.height // _PIXELS_PER_TOKEN)

    @property
    def max_tokens(self) -> int:
        """Return a number of input tokens that hardly any model exceeds."""
        return -(-self.width * self.height // _LEAST_PIXELS_PER_TOKEN)


def estimated_tokens(edge_pixels: int) -> int:
    """Return the estimated tokens of an ISO 216 page whose longer edge has `edge_pixels` pixels."""
    short = round(edge_pixels / 2**0.5)
    return Picture(number=1, data=b"", width=short, height=edge_pixels).estimated_tokens
