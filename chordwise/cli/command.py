"""Turns a function into a command: parameters become options, the result the exit code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, ParamSpec, cast, get_args, get_origin, get_type_hints

import typer

from chordwise.cli.invocation import Invocation
from chordwise.errors import ExitCode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
EPILOG = "Global options: --config FILE, --home FOLDER, --verbose, --debug."


class ExcludeFields:
    """Excludes fields of an options object from a command: `Annotated[…, ExcludeFields(…)]`."""

    def __init__(self, *names: str) -> None:
        self.names = names


def add(
    app: typer.Typer, name: str, function: Callable[P, ExitCode | None], epilog: str = EPILOG
) -> None:
    """Add a function to an application as a command."""
    app.command(name, epilog=epilog)(command(function))


def command(function: Callable[P, ExitCode | None]) -> Callable[[], None]:
    """Return the function that Typer calls for a command.

    A parameter of type `Invocation` receives the invocation. The fields of any other dataclass
    parameter become options, in their order. The function returns the exit code; `None` is success.
    """
    hints = get_type_hints(function, include_extras=True)
    objects = {name: of for name, hint in hints.items() if (of := _options_class(hint))}
    call = cast("FunctionType", function)  # Typer parses values into the hinted types

    def run(**given: object) -> None:
        for name in (name for name, hint in hints.items() if hint is Invocation):
            invocation = Invocation.of(cast("typer.Context", given[name]))
            if invocation.parsed is not None:
                invocation.parsed |= given
                raise typer.Exit
            if invocation.occurrence is not None:  # nobody can answer, and others are due
                given |= {option: True for option in ("yes", "no_wait") if option in given}
                if invocation.occurrence.is_resumed and "force" in given:
                    given["force"] = True  # an earlier process may have written the file
            given[name] = invocation
        for name, of in objects.items():
            options = [each.name for each in fields(of) if each.name in given]
            given[name] = of(**{option: given.pop(option) for option in options})
        code: object = call(**given)
        raise typer.Exit(code if isinstance(code, ExitCode) else ExitCode.SUCCESS)

    run.__name__, run.__doc__, run.__annotations__ = call.__name__, call.__doc__, {}
    own = inspect.signature(function).parameters.values()
    shown = [option for each in own for option in _options(each, hints[each.name])]
    setattr(run, "__signature__", inspect.Signature(shown))  # noqa: B010 - no type declares it
    return run


def _options(parameter: Parameter, hint: object) -> Iterator[Parameter]:
    """Yield the Typer parameters for a parameter."""
    of = _options_class(hint)
    if of is None:
        hint = typer.Context if hint is Invocation else hint
        yield _keyword(parameter.name, parameter.default, hint)
        return
    left_out = [name for mark in get_args(hint)[1:] for name in mark.names]
    hints = get_type_hints(of, include_extras=True)
    for field in fields(of):
        if field.name not in left_out:
            default = Parameter.empty if field.default is MISSING else field.default
            yield _keyword(field.name, default, hints[field.name])


def _keyword(name: str, default: object, hint: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _options_class(hint: object) -> type[DataclassInstance] | None:
    """Return the options dataclass that a parameter takes, or `None`."""
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    is_options = isinstance(bare, type) and is_dataclass(bare) and bare is not Invocation
    return cast("type[DataclassInstance]", bare) if is_options else None
