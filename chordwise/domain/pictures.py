"""Pictures of pages, as models that see are shown them."""

from __future__ import annotations

import base64
from dataclasses import dataclass

MEDIA_TYPE = "image/jpeg"
# Providers scale a picture and count its tiles or patches, each in its own way.
_PIXELS_PER_TOKEN = 750
"""What Anthropic documents; OpenAI's patches of 32 x 32 pixels come to about the same."""
_LEAST_PIXELS_PER_TOKEN = 14 * 14
"""A token for each patch of 14 x 14 pixels, the smallest that vision models have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page of a document as JPEG; `number` counts pages from 1, the sizes are in pixels."""

    number: int
    data: bytes
    width: int
    height: int

    @property
    def base64(self) -> str:
        """Return the data as requests carry it."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def estimated_tokens(self) -> int:
        """Return about how many input tokens a model counts for it."""
        return -(-self.width * self.height // _PIXELS_PER_TOKEN)

    @property
    def max_tokens(self) -> int:
        """Return a number of input tokens that hardly any model exceeds."""
        return -(-self.width * self.height // _LEAST_PIXELS_PER_TOKEN)


def estimated_tokens(edge_pixels: int) -> int:
    """Return what a page of paper (ISO 216) takes whose longer edge has so many pixels."""
    short = round(edge_pixels / 2**0.5)
    return Picture(number=1, data=b"", width=short, height=edge_pixels).estimated_tokens
