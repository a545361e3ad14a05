"""Failpoints: named moments in the life of a job at which a process can be disturbed.

Chordwise does not know them: `tests.faults.armed` wraps the named functions before it runs a
process.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, cast

from chordwise.storage.chunk_work import ChunkEnd, JobEnd

Condition: TypeAlias = Callable[[tuple[object, ...], Mapping[str, object], object], bool]
"""Checks the arguments, the named arguments, and (afterwards) the return value."""

EVERY_HIT = 0


class Function(Protocol):
    """A wrapped function."""

    def __call__(self, *args: object, **options: object) -> object: ...


class UnknownPointError(Exception):
    """A failpoint is unknown or malformed, or its function no longer exists."""


class InjectedError(RuntimeError):
    """The error of the action `raise`; for Chordwise it is a defect."""


def _always(*_: object) -> bool:
    return True


def _is_synthesis_lease(args: tuple[object, ...], *_: object) -> bool:
    return any(getattr(value, "chunk_id", value) is None for value in args)


def _has_ended(_args: tuple[object, ...], _named: Mapping[str, object], returned: object) -> bool:
    return returned == "ended"


def _is_chunk_message(args: tuple[object, ...], options: Mapping[str, object], _: object) -> bool:
    return "chordwise.analyze_slice" in (*args, options.get("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment: `before` or after a function of a module, if the condition holds."""

    module: str
    function: str
    before: bool = False
    condition: Condition = _always


def _ends_work(args: tuple[object, ...], *_: object) -> bool:
    group = args[1]
    assert isinstance(group, list)
    return any(isinstance(entry.item.item, ChunkEnd | JobEnd) for entry in group)


_GROUP = Point(
    module="chordwise.storage.group_commit", function="GroupCommit._store", condition=_ends_work
)
_SUBMITTER, _DELIVERER = (
    Point(module="chordwise.pipeline.inbox.file_submitter", function="FileSubmitter.submit"),
    Point(module="chordwise.pipeline.inbox.file_deliverer", function="FileDeliverer._deliver"),
)
_CHORD = "celery.backends.redis"
POINTS: Mapping[str, Point] = {
    "chunk.before_claim": Point(module="worker.tasks", function="analyze_chunk", before=True),
    "chunk.claimed": Point(
        module="chordwise.pipeline.jobs.analyze_chunk", function="about_part", before=True
    ),
    "call.before_request": Point(
        module="chordwise.llm.transport", function="JsonTransport.post_json", before=True
    ),
    "call.answered": Point(module="chordwise.llm.transport", function="JsonTransport.post_json"),
    "chunk.before_commit": Point(module="chordwise.storage.chunks", function="end_all"),
    "group.before_commit": replace(_GROUP, before=True),
    "group.committed": _GROUP,
    "chunk.committed": Point(module="worker.tasks", function="analyze_chunk", condition=_has_ended),
    "chord.before_count": Point(
        module=_CHORD, function="RedisBackend.on_chord_part_return", before=True
    ),
    "chord.before_publish": Point(
        module="celery.app.amqp", function="AMQP._retry_publish", before=True
    ),
    "chord.published": Point(module="celery.app.amqp", function="AMQP._retry_publish"),
    "fan_out.before_chunks": Point(
        module="chordwise.storage.fan_outs", function="_insert", before=True
    ),
    "fan_out.mid_publish": Point(
        module="celery.app.base", function="Celery.send_task", condition=_is_chunk_message
    ),
    "fan_out.published": Point(
        module="chordwise.pipeline.runtime.messages", function="Messenger.start_chord"
    ),
    "synthesis.claimed": Point(
        module="chordwise.pipeline.runtime.leases",
        function="LeaseKeeper.holding",
        before=True,
        condition=_is_synthesis_lease,
    ),
    "synthesis.result_saved": Point(module="chordwise.storage.results", function="save_all"),
    "synthesis.committed": Point(module="chordwise.pipeline.jobs.synthesize", function="_end"),
    "broker.popped": Point(module="kombu.transport.redis", function="QoS.append", before=True),
    "inbox.claimed": replace(_SUBMITTER, before=True),
    "inbox.read": Point(module="chordwise.storage.inbox_files", function="record_submitted"),
    "inbox.submitted": _SUBMITTER,
    "inbox.answered": replace(_DELIVERER, before=True),
    "inbox.hidden": replace(_DELIVERER, function="FileDeliverer._hide"),
    "inbox.moved": replace(_DELIVERER, function="FileDeliverer._move"),
    "inbox.noted": replace(_DELIVERER, function="FileDeliverer._add_note"),
    "dispatch.recorded": Point(
        module="chordwise.pipeline.runtime.messages", function="Messenger.send", before=True
    ),
    "dispatch.sent": Point(
        module="chordwise.pipeline.jobs.dispatch", function="_take_back", before=True
    ),
}


@dataclass(slots=True, kw_only=True)
class Hits:
    """Acts at one hit of a point (the first is 1), or at every one."""

    name: str
    act: Callable[[str], None]
    at: int
    count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self) -> None:
        """Count a hit, and act if it is the selected one."""
        with self._lock:
            self.count += 1
            due = self.at in (EVERY_HIT, self.count)
        if due:
            sys.stderr.write(f"failpoint {self.name} passed, hit {self.count}\n")
            sys.stderr.flush()
            self.act(self.name)


def arm(text: str) -> None:
    """Wrap the functions of the points in `text`: `name:action[:argument][:hit]`, by `;`.

    Actions: `kill` (SIGKILL itself), `freeze` (SIGSTOP itself), `hang:SECONDS`, `raise`. The hit
    is a number from 1, which is the default, or `*` for every one.

    Raises:
        UnknownPointError: A name, an action, or the function of a point is unknown.
    """
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = entry.partition(":")
        if name not in POINTS:
            raise UnknownPointError(f"There is no failpoint “{name}”. Known: {', '.join(POINTS)}.")
        _wrap(POINTS[name], _hits(name, rest.split(":")))


def _hits(name: str, words: list[str]) -> Hits:
    action, *rest = words
    act: Callable[[str], None]
    match action:
        case "kill":
            act = functools.partial(_signal, signal.SIGKILL)
        case "freeze":
            act = functools.partial(_signal, signal.SIGSTOP)
        case "raise":
            act = _raise
        case "hang" if rest:
            act = functools.partial(_hang, float(rest.pop(0)))
        case _:
            raise UnknownPointError(
                f"“{action}” is not an action of a failpoint: kill, freeze, hang:S, raise."
            )
    number = rest[0] if rest else "1"
    return Hits(name=name, act=act, at=EVERY_HIT if number == "*" else int(number))


def _wrap(point: Point, hits: Hits) -> None:
    *path, attribute = point.function.split(".")
    try:
        holder: object = importlib.import_module(point.module)
        for step in path:
            holder = getattr(holder, step)
        wrapped = cast("Function", getattr(holder, attribute))
    except (ImportError, AttributeError) as error:
        raise UnknownPointError(
            f"The failpoint {hits.name} has lost its function: "
            f"{point.module} has no {point.function}."
        ) from error
    setattr(holder, attribute, _watched(wrapped, point, hits))


def _watched(function: Function, point: Point, hits: Hits) -> Function:
    @functools.wraps(function)
    def watched(*args: object, **options: object) -> object:
        if point.before and point.condition(args, options, None):
            hits.hit()
        returned = function(*args, **options)
        if not point.before and point.condition(args, options, returned):
            hits.hit()
        return returned

    return watched


def _signal(number: signal.Signals, _name: str) -> None:
    os.kill(os.getpid(), number)


def _raise(name: str) -> None:
    raise InjectedError(f"the failpoint {name}")


def _hang(seconds: float, _name: str) -> None:
    time.sleep(seconds)  # noqa: TID251 - the thread must hang
