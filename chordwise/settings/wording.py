"""What is wrong with settings, in words of ours: pydantic speaks of inputs, tuples and values."""

from __future__ import annotations

from pydantic import ValidationError

_LISTS = {"folders": '["inbox"]', "paths": '["letters"]', "types": '["summary"]'}
_ANY_LIST = '["a", "b"]'
_TABLES = ("dict_type", "mapping_type", "model_type")


def problems(error: ValidationError) -> list[str]:
    """Return each problem, without a stop at its end and without what was entered."""
    return [
        _problem([str(step) for step in each["loc"]], each["type"], each["msg"])
        for each in error.errors(include_input=False, include_url=False)
    ]


def _problem(steps: list[str], kind: str, message: str) -> str:
    place = ".".join(steps)
    if kind == "extra_forbidden":
        return f"there is no setting {place}"
    said = message.removeprefix("Value error, ")
    if kind == "tuple_type":
        said = f"it wants a list, such as {_LISTS.get(steps[-1], _ANY_LIST)}"
    elif kind in _TABLES:
        said = "it wants a table"
    return f"{place}: {said}" if place else said
