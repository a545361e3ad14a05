"""Turns a function into a command: parameters become options, the result the exit code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from types import FunctionType
from typing import Annotated, TypeAlias, cast, get_args, get_origin, get_type_hints

import typer

from chordwise.cli.invocation import Invocation
from chordwise.domain.flags import Option
from chordwise.errors import ExitCode

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


def add(app: typer.Typer, name: str, function: object, epilog: str = EPILOG) -> None:
    """Add a function to an application as a command."""
    app.command(name, epilog=epilog)(command(function))


def group(summary: str, **functions: object) -> typer.Typer:
    """Return a command with a subcommand for each of the functions."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=summary, epilog=EPILOG)
    for name, function in functions.items():
        add(app, name, function)
    return app


def command(function: object) -> Callable[[], None]:
    """Return the function that Typer calls for a command.

    A parameter of type `Invocation` receives the invocation. The fields of any other dataclass
    parameter, and the values of a `Parsed` one, become options, in their order. The function
    returns the exit code; `None` is success.
    """
    call = cast("FunctionType", function)  # Typer parses values into the hinted types
    hints = get_type_hints(call, include_extras=True)
    groups = {name: flags for name, hint in hints.items() if (flags := _flags(hint))}

    def run(**values: object) -> None:
        for name in (name for name, hint in hints.items() if hint is Invocation):
            invocation = cast("typer.Context", values[name]).ensure_object(Invocation)
            if invocation.parsed is not None:
                invocation.parsed |= values
                raise typer.Exit
            if invocation.occurrence is not None:  # there is no user to ask, and other work is due
                values |= {option: True for option in ("yes", "no_wait") if option in values}
                if invocation.occurrence.is_resumed and "force" in values:
                    values["force"] = True  # an earlier process may have written the file
            values[name] = invocation
        for name, (build, flags) in groups.items():
            values[name] = build({flag.name: values.pop(flag.name) for flag in flags})
        code: object = call(**values)
        raise typer.Exit(code if isinstance(code, ExitCode) else ExitCode.SUCCESS)

    run.__name__, run.__doc__, run.__annotations__ = call.__name__, call.__doc__, {}
    parameters: list[Parameter] = []
    for name, parameter in inspect.signature(call).parameters.items():
        hint = typer.Context if hints[name] is Invocation else hints[name]
        usual = parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hint)
        parameters += groups[name][1] if name in groups else [usual]
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 - no type declares it
    return run


def _flags(hint: object) -> tuple[Callable[[Values], object], Collection[Parameter]] | None:
    """Return how an options object is made, and its flags; `None` for another parameter."""
    of, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    exclusions = [mark.names for mark in marks if isinstance(mark, ExcludeFields)]
    for marker in (mark for mark in marks if isinstance(mark, Parsed)):
        return marker, [
            _flag(name, marker.types.get(name, kind), notes, flag)
            for name, (kind, notes, flag) in _declared(of).items()
            if not any(name in names for names in exclusions)
        ]
    if not (isinstance(of, type) and is_dataclass(of)) or of is Invocation:
        return None
    hints = get_type_hints(of, include_extras=True)
    return (lambda values: of(**values)), [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(of)
    ]


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
