"""Addresses in the settings: their checks, which never quote one, and those of providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Protocol, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import AfterValidator

from chordwise.domain.addresses import split
from chordwise.kinds import Kinds

SUPPORTED_BROKERS = (
    "redis://HOST:6379/0, rediss://HOST:6379/0 (TLS), or redis+socket:///PATH and unix:///PATH "
    "(a Unix socket)"
)

_TLS = "rediss"
_NETWORK = ("redis", _TLS)
_SOCKETS = ("redis+socket", "unix")
_NUMBER = ("db", "virtual_host")
"""The options of redis-py and of Celery for the database number on a socket."""
_VERIFICATION: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("required", "CERT_REQUIRED"), "required"),
        **dict.fromkeys(("optional", "CERT_OPTIONAL"), "optional"),
        **dict.fromkeys(("none", "CERT_NONE"), "none"),
    }
)
_CERTIFICATES = "ssl_cert_reqs"
_TLS_OPTIONS = (_CERTIFICATES, "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")
_LARGEST_PORT = 65_535
_PORT = re.compile(r"[0-9]{1,5}")
_INDEX = re.compile(r"[0-9]{0,9}")
_ENCODED = "special characters in a password must be percent-encoded, such as %40 for @"
_WRONG_PORT = f"its port is not a number from 1 to {_LARGEST_PORT}; {_ENCODED}"
# As in SQLAlchemy: a password may contain a slash, but no @.
_DATABASE = re.compile(
    r"[\w+]+://"
    r"(?:[^:/?]*(?P<password>:[^@]*)?@)?"
    r"(?P<host>\[[^/?]+\]|[^/:?]*)(?::(?P<port>[^/?]*))?"
    r"(?:/[^?]*)?(?:\?(?P<query>.*))?"
)


def check_broker(url: str) -> None:
    """Refuse an address that Celery or redis-py cannot use.

    Raises:
        ValueError: The scheme, the host, the port, the database's number or an option is wrong.
    """
    scheme = _scheme(url, f"of Valkey or Redis: {SUPPORTED_BROKERS}")
    if scheme not in (*_NETWORK, *_SOCKETS):
        raise ValueError(f"{scheme}:// is not supported; use {SUPPORTED_BROKERS}")
    parts, options = _split(url), _options(url)
    if scheme in _NETWORK:
        _require_host(parts, f"{scheme}://HOST:6379/0")
        _require_number(parts.path.removeprefix("/"))
    else:
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError(f"it has no socket path; the form is {scheme}:///PATH")
        _require_number(_number_in(options))
    names = _NUMBER if scheme in _SOCKETS else _TLS_OPTIONS if scheme == _TLS else ()
    if not options.keys() <= set(names):
        allowed = f"only the options {', '.join(names)}" if names else "no options"
        raise ValueError(f"{scheme}:// takes {allowed} after the ?")
    if options.get(_CERTIFICATES, "required") not in _VERIFICATION:
        raise ValueError(f"{_CERTIFICATES} must be required, optional or none")


def check_database(url: str) -> None:
    """Refuse an address of another kind; without a host, libpq uses the Unix socket.

    Raises:
        ValueError: The scheme, the host or the port is wrong.
    """
    form = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    scheme = _scheme(url, f"of PostgreSQL: {form}")
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"{scheme}:// is not supported; Chordwise needs PostgreSQL: {form}")
    match = _DATABASE.fullmatch(url)
    if match is None or "@" in match["host"]:
        raise ValueError(f"it cannot be parsed; the form is {form}, and {_ENCODED}")
    if match["port"] is not None and not _is_port(match["port"]):
        raise ValueError(_WRONG_PORT)
    host = match["host"] or "host" in dict(parse_qsl(match["query"] or ""))
    if not host and (match["password"] or match["port"]):
        raise ValueError(f"it has no host; the form is {form}")


def check_web(url: str) -> None:
    """Refuse an invalid web address.

    Raises:
        ValueError: The scheme, the host or the port is wrong.
    """
    form = "https://HOST/PATH"
    scheme = _scheme(url.strip(), f"that begins with https:// or http://, such as {form}")
    if scheme not in ("http", "https"):
        raise ValueError(f"{scheme}:// is not supported; use https:// or http://")
    _require_host(_split(url.strip()), form)


def celery_address(url: str) -> str:
    """Return the address of a broker in the form of Celery.

    Certificates are verified unless the address disables it: Celery itself would accept any.
    """
    return _spelled(url, "redis+socket", "virtual_host")


def redis_address(url: str) -> str:
    """Return the address of a broker in the form of redis-py."""
    return _spelled(url, "unix", "db")


def _spelled(url: str, socket_scheme: str, number_option: str) -> str:
    parts, options = _split(url), _options(url)
    scheme = parts.scheme
    if scheme in _SOCKETS:
        number = _number_in(options)
        scheme, options = socket_scheme, {number_option: number} if number else {}
    elif scheme == _TLS:
        options[_CERTIFICATES] = _VERIFICATION[options.get(_CERTIFICATES, "required")]
    # `urlunsplit` drops the slashes of an empty host for schemes that it does not know.
    query = f"?{urlencode(options, quote_via=quote, safe='/')}" if options else ""
    return f"{scheme}://{parts.netloc}{parts.path}{query}"


def _number_in(options: Mapping[str, str]) -> str:
    return next((options[name] for name in _NUMBER if name in options), "")


def _scheme(url: str, what: str) -> str:
    if not url:
        raise ValueError("it is empty; remove it or set an address")
    match = _SCHEME.match(url)
    if match is None:
        raise ValueError(f"it is not an address {what}")
    return match[1].lower()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.hostname
    except ValueError:
        raise ValueError("its host cannot be parsed; write IPv6 addresses as [::1]") from None
    return parts


def _options(url: str) -> dict[str, str]:
    return dict(parse_qsl(_split(url).query, keep_blank_values=True))


def _require_host(parts: SplitResult, form: str) -> None:
    if not parts.hostname:
        raise ValueError(f"it has no host; the form is {form}, and {_ENCODED}")
    _, colon, port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")
    if colon and not _is_port(port):
        raise ValueError(_WRONG_PORT)


def _is_port(port: str) -> bool:
    return bool(_PORT.fullmatch(port)) and 0 < int(port) <= _LARGEST_PORT


def _require_number(number: str) -> None:
    if not _INDEX.fullmatch(unquote(number)):
        raise ValueError("its database is not a number such as 0")


class Hosted(Protocol):
    """What the settings need of a provider: the host of its public address, empty without one."""

    host: str


PROVIDERS: Kinds[Hosted] = Kinds("chordwise.llm.providers", "PROVIDER")


def _known(name: str) -> str:
    if name not in PROVIDERS:
        raise ValueError(f"it must be one of {', '.join(PROVIDERS)}")
    return name


ProviderName: TypeAlias = Annotated[str, AfterValidator(_known)]


def host_of(provider: str) -> str:
    """Return the host of the public address of a provider; empty if there is none."""
    return PROVIDERS[provider].host if provider in PROVIDERS else ""


def is_at_provider(provider: str, base_url: str) -> bool:
    """Return whether an address is the provider's public one; an empty address counts as such.

    It must use HTTPS, the exact host, and the default port; an address with user information does
    not count.
    """
    host = host_of(provider)
    if not host or not base_url.strip():
        return bool(host)
    parts = split(base_url.strip())
    return (
        parts is not None
        and parts.scheme == "https"
        and parts.netloc.lower() in {host, f"{host}:443"}
    )
