"""Operation: Create, list and revoke tokens of the API."""

from __future__ import annotations

import getpass
from typing import Annotated, TypeAlias

import typer

from chordwise.cli import access
from chordwise.cli.command import group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.people import Right
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.storage import api_tokens, audit_events

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]
_HELP = """Create, list and revoke tokens of the API.

chordwise tokens create reports
"""


def create(
    invocation: Invocation,
    name: Name,
    *,
    scope: Annotated[
        list[Right] | None,
        typer.Option(help="What the token allows; may be repeated. Default: read."),
    ] = None,
) -> None:
    """Create a token and print it once; only its hash is stored.

    chordwise tokens create intake --scope read --scope submit
    """
    with access.write(access.reach(invocation)) as session:
        token = api_tokens.create(session, name, scope or [Right.READ])
        audit_events.record(session, getpass.getuser(), "created token", name)
    invocation.screen.write(f"{token}\n")
    invocation.screen.info("Keep it safe: it is not shown again.")


def list_tokens(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """List the tokens and their scopes.

    chordwise tokens list
    """
    with access.read(access.reach(invocation)) as session:
        tokens = [(token.name, token.scopes) for token in api_tokens.gather(session)]
    if as_json:
        invocation.screen.write_json(tokens=dict(tokens))
    else:
        rows = [(one_line(name, 80), scopes) for name, scopes in tokens]
        invocation.screen.show(layouts.table(["name", "scopes"], rows))


def revoke(invocation: Invocation, name: Name) -> None:
    """Revoke a token; it is refused from now on.

    chordwise tokens revoke reports
    """
    with access.write(access.reach(invocation)) as session:
        api_tokens.revoke(session, name)
        audit_events.record(session, getpass.getuser(), "revoked token", name)


tokens = group(_HELP, create=create, list=list_tokens, revoke=revoke)
