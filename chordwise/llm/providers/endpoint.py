"""Where a provider is and how we identify ourselves there, checked before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from chordwise.errors import ConfigurationError


def endpoint(base_url: str, path: str) -> str:
    """Return the address of an operation below `base_url`, which may hold the path already.

    A query (Azure's `api-version`) stays. The settings refuse what is no address of a web server.
    """
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/").removesuffix(path)
    return urlunsplit((parts.scheme, parts.netloc, base + path, parts.query, ""))


def host_of(base_url: str) -> str:
    """Return the host's name of an address; empty where there is none."""
    try:
        return urlsplit(base_url.strip()).hostname or ""
    except ValueError:
        return ""


def checked_key(api_key: SecretStr) -> str:
    """Return the key as a header may carry it.

    Raises:
        ConfigurationError: It holds characters that no key has; a header library would put the
            whole of it into its error.
    """
    key = api_key.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "The API key holds characters that no key has.",
            "Copy it again, without quotes, spaces or line breaks.",
        )
    return key
