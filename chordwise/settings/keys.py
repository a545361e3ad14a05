"""What to say of a model whose requests carry no key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chordwise.domain import addresses

if TYPE_CHECKING:
    from chordwise.settings import Settings

_NO_NAME = re.compile(r"[^A-Z0-9]+")


def without_key(settings: Settings, name: str) -> tuple[str, str] | None:
    """Return what is so and what to write for a model that is asked without a key, if it is.

    Only models at an address of the user's own can be; the others need a key or no address.

    Raises:
        ConfigurationError: There is no such model.
    """
    model = settings.model_named(name)
    if not model.base_url or addresses.has_user(model.base_url):
        return None
    if settings.api_key_for(model).get_secret_value():
        return None
    what = f"no key is sent to {addresses.shown(model.base_url)} (no Authorization header)"
    if model.api_key_env:
        return what, f"Set {model.api_key_env}, the variable that api_key_env names."
    variable = f"{_NO_NAME.sub('_', name.upper()).strip('_0123456789')}_API_KEY"
    hint = f'If the server needs one: api_key_env = "{variable}" below [models.{name}].'
    host = addresses.provider_host(model.provider)
    own = f" {model.provider.upper()}_API_KEY goes to {host} only." if host else ""
    return what, hint + own
