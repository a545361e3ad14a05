"""Looking into a provider's answer without trusting its types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from chordwise.domain.json_values import JsonObject

MOST_TOKENS = 1_000_000_000
"""No request has as many: whoever counts more has miscounted."""
MAX_REPORTED_USD = Decimal(10_000)
"""No request costs as much: a server that reports more is not believed."""
COST_HEADER = "x-litellm-response-cost"
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`; anything else counts as an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` where there is no sensible one."""
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 0 <= found <= MOST_TOKENS else None


def cost_in_header(headers: Mapping[str, str]) -> Decimal | None:
    """Return the cost in US dollars that LiteLLM's proxy puts into a header of its answers.

    The proxy sends none for a model whose price it does not know.
    """
    return _usd(headers.get(COST_HEADER, ""))


def cost_in_usage(usage: JsonObject) -> Decimal | None:
    """Return the cost in US dollars that OpenRouter puts into `usage` of its answers.

    With a key of the user's own for the provider behind it (`is_byok`), `cost` is OpenRouter's fee
    alone, and what that provider charges stands beside it.
    """
    cost_usd = _number(usage, "cost")
    if usage.get("is_byok") is not True:
        return cost_usd
    charged_usd = _number(child(usage, "cost_details"), "upstream_inference_cost")
    if cost_usd is None or charged_usd is None:
        return None
    return cost_usd + charged_usd


def _number(value: JsonObject, key: str) -> Decimal | None:
    found = value.get(key)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return _usd(repr(found)) if is_number else None


def _usd(written: str) -> Decimal | None:
    """Return an amount of dollars, or `None` where it is none that a request can cost."""
    if not _NUMBER.fullmatch(written):
        return None
    usd = Decimal(written)
    return usd if usd < MAX_REPORTED_USD else None


def storable(text: str) -> str:
    """Return the text with each half of a broken surrogate pair replaced: UTF-8 has none."""
    return text.encode(errors="replace").decode()
