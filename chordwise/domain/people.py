"""People: what a person may do, and whether profiles can be closed to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

READING_AS: ContextVar[str | None] = ContextVar("reading_as", default=None)
"""The reader whose rights a request has: `None` for those of the process, empty without a key."""
KEY_SETTING: Final = "chordwise.key"
"""The setting of a database session that holds the key of its reader."""
OPERATOR: Final = ""
"""The name of the key that opens all profiles."""


class Right(StrEnum):
    """What a person or a token may do: read answers, submit and cancel runs, decide on values."""

    READ = "read"
    SUBMIT = "submit"
    DECIDE = "decide"


class Role(StrEnum):
    """A reader only reads, a reviewer also decides, an operator may do everything."""

    READER = "reader"
    REVIEWER = "reviewer"
    OPERATOR = "operator"

    @property
    def rights(self) -> frozenset[Right]:
        """What the role allows."""
        allowed = {self.READER: (Right.READ,), self.REVIEWER: (Right.READ, Right.DECIDE)}
        return frozenset(allowed.get(self, Right))


@dataclass(frozen=True, slots=True)
class Person:
    """Who uses the pages or the API; without `sees_all`, closed profiles are hidden.

    A name that is not `is_identified` has been typed: it opens no profile. `token` is the one with
    which the person has signed in to the pages, if any.
    """

    name: str
    rights: frozenset[Right]
    sees_all: bool = False
    is_identified: bool = True
    token: str = field(default="", repr=False)

    @property
    def reader(self) -> str | None:
        """The name among the readers of profiles, empty for an unknown person; `None`: all."""
        return None if self.sees_all else self.name * self.is_identified


def identified_person(
    name: str, roles: Mapping[str, Role], rights: Collection[str] = tuple(Right)
) -> Person | None:
    """Return a person whom a proxy or a token names; `None` if the roles do not allow any access.

    Without roles, all may act within the `rights`, and closed profiles stay closed.
    """
    role = roles.get(name, roles.get("*")) if roles else None
    if roles and role is None:
        return None
    allowed = frozenset(Right) if role is None else role.rights
    return Person(
        name,
        allowed & {Right(scope) for scope in rights},
        sees_all=name != "*" and roles.get(name) is Role.OPERATOR,
    )


def unidentified_person(name: str, roles: Mapping[str, Role]) -> Person | None:
    """Return a person who knows the shared password and has typed a name; `None` as above."""
    others = identified_person("*", roles)
    return others and Person(name, others.rights, is_identified=False)
