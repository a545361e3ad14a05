"""Turns a function into a command: parameters become options, the result the exit code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    ParamSpec,
    TypeAlias,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from chordwise.cli.invocation import Invocation
from chordwise.domain.flags import Option
from chordwise.errors import ExitCode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = ParamSpec("P")
Values: TypeAlias = dict[str, object]
EPILOG = "Global options: --config FILE, --home FOLDER, --verbose, --debug."


class ExcludeFields:
    """Excludes flags of a `Parsed` object from a command: `Annotated[…, ExcludeFields(…)]`."""

    def __init__(self, *names: str) -> None:
        self.names = names


class Parsed:
    """Marks an object whose values with an `Option` become flags.

    `parse` makes the object of the flags that are given. `types` are the types of flags that are
    written differently from their values.
    """

    def __init__(self, parse: Callable[[Values], object], **types: type) -> None:
        self._parse = parse
        self.types = types

    def __call__(self, flags: Values) -> object:
        """Return the object that the given flags make; the others are `None` or an empty list."""
        return self._parse({name: flag for name, flag in flags.items() if flag not in (None, [])})


def add(
    app: typer.Typer, name: str, function: Callable[P, ExitCode | None], epilog: str = EPILOG
) -> None:
    """Add a function to an application as a command."""
    app.command(name, epilog=epilog)(command(function))


def command(function: Callable[P, ExitCode | None]) -> Callable[[], None]:
    """Return the function that Typer calls for a command.

    A parameter of type `Invocation` receives the invocation. The fields of any other dataclass
    parameter, and the values of a `Parsed` one, become options, in their order. The function
    returns the exit code; `None` is success.
    """
    hints = get_type_hints(function, include_extras=True)
    builders = {name: builder for name, hint in hints.items() if (builder := _builder(hint))}
    call = cast("FunctionType", function)  # Typer parses values into the hinted types

    def run(**values: object) -> None:
        for name in (name for name, hint in hints.items() if hint is Invocation):
            invocation = Invocation.of(cast("typer.Context", values[name]))
            if invocation.parsed is not None:
                invocation.parsed |= values
                raise typer.Exit
            if invocation.occurrence is not None:  # there is no user to ask, and other work is due
                values |= {option: True for option in ("yes", "no_wait") if option in values}
                if invocation.occurrence.is_resumed and "force" in values:
                    values["force"] = True  # an earlier process may have written the file
            values[name] = invocation
        for name, (build, options) in builders.items():
            values[name] = build(
                {option: values.pop(option) for option in options if option in values}
            )
        code: object = call(**values)
        raise typer.Exit(code if isinstance(code, ExitCode) else ExitCode.SUCCESS)

    run.__name__, run.__doc__, run.__annotations__ = call.__name__, call.__doc__, {}
    parameters = inspect.signature(function).parameters.values()
    flags = [flag for parameter in parameters for flag in _flags(parameter, hints[parameter.name])]
    setattr(run, "__signature__", inspect.Signature(flags))  # noqa: B010 - no type declares it
    return run


def _builder(hint: object) -> tuple[Callable[[Values], object], Collection[str]] | None:
    """Return how an options object is made, and the names of its options."""
    if marker := _marker(hint):
        return marker, _declared(get_args(hint)[0])
    of = _options_class(hint)
    return None if of is None else (lambda flags: of(**flags), [field.name for field in fields(of)])


def _flags(parameter: Parameter, hint: object) -> Iterator[Parameter]:
    """Yield the Typer parameters for a parameter."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    excluded = {name for mark in marks if isinstance(mark, ExcludeFields) for name in mark.names}
    of = _options_class(hint)
    if marker := _marker(hint):
        declared = _declared(get_args(hint)[0])
        for name in (name for name in declared if name not in excluded):
            kind, notes, flag = declared[name]
            yield _flag(name, marker.types.get(name, kind), notes, flag)
    elif of is None:
        hint = typer.Context if hint is Invocation else hint
        yield parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint)
    else:
        hints = get_type_hints(of, include_extras=True)
        for field in fields(of):
            default = Parameter.empty if field.default is MISSING else field.default
            yield Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
            )


Declared: TypeAlias = Mapping[str, tuple[object, Collection[object], str]]


def _declared(of: type) -> Declared:
    """Return the type, the marks and the flag of each value with an `Option`."""
    declared: dict[str, tuple[object, Collection[object], str]] = {}
    if members := getattr(of, "model_fields", None):
        for name, field in members.items():
            flag = (field.alias or name).replace("_", "-")
            both = f"{flag}/--no-{flag}" if field.default is True else flag
            declared[name] = field.annotation, field.metadata, both
    else:
        for name, hint in get_type_hints(of, include_extras=True).items():
            kind, *marks = get_args(hint)
            declared[name] = kind, marks, name.replace("_", "-")
    return {
        name: (kind, marks, f"--{flag}")
        for name, (kind, marks, flag) in declared.items()
        if any(isinstance(mark, Option) for mark in marks)
    }


def _flag(name: str, kind: object, marks: Collection[object], flag: str) -> Parameter:
    """Return the Typer parameter for a value with an `Option`."""
    option = next(mark for mark in marks if isinstance(mark, Option))
    is_many = get_origin(kind) is tuple
    while inner := get_args(kind):  # of a union with None, of Annotated, of a tuple
        kind = inner[0]
    info = typer.Option(
        *(option.flags or (flag,)),
        metavar=option.metavar,
        help=option.help,
        min=next((mark.ge for mark in marks if hasattr(mark, "ge")), None),
        max=next((mark.le for mark in marks if hasattr(mark, "le")), None),
    )
    hint = list[kind] if is_many else kind  # type: ignore[valid-type]  # made at run time
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[hint | None, info],  # type: ignore[operator]  # as above
    )


def _marker(hint: object) -> Parsed | None:
    return next((mark for mark in get_args(hint)[1:] if isinstance(mark, Parsed)), None)


def _options_class(hint: object) -> type[DataclassInstance] | None:
    """Return the options dataclass that a parameter takes, or `None`."""
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    is_options = isinstance(bare, type) and is_dataclass(bare) and bare is not Invocation
    return cast("type[DataclassInstance]", bare) if is_options else None
