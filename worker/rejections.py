"""Drops foreign messages before Celery sees them, logs them without content, and counts them."""

from __future__ import annotations

import base64
import re
import threading
from collections import Counter
from enum import StrEnum

import structlog
from kombu.utils import json

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT, MAX_SLICE, SYNTHESIZE
from chordwise.storage import incidents
from chordwise.storage.database import Database
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 1.0


class Rejections:
    """Logs each rejection at once; a thread adds their numbers up in the database.

    If the database is unavailable, they are counted later, unless the process ends.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uncounted: Counter[Rejection] = Counter()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start counting."""
        threading.Thread(target=self._run, name="rejections", daemon=True).start()

    def add(self, reason: Rejection, queue: str = "") -> None:
        """Record a dropped message; its content is not logged."""
        log.warning("message.rejected", reason=reason.value, queue=queue)
        with self._lock:
            self._uncounted[reason] += 1

    def count(self) -> None:
        """Store the rejections that are not counted yet.

        Raises:
            ServiceUnavailableError: The database is unavailable; nothing is lost.
        """
        with self._lock:
            counted, self._uncounted = self._uncounted, Counter()
        try:
            if not counted:
                return
            with self._database.write() as session:
                for reason, number in sorted(counted.items()):
                    incidents.count(session, IncidentKind.REJECTED_MESSAGE, reason.value, number)
        except Exception:
            with self._lock:
                self._uncounted += counted
            raise

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_INTERVAL_SECONDS):
            try:
                self.count()
            except ServiceUnavailableError as error:
                log.warning("message.not_counted", reason=error.what)
            except Exception:  # a failed count must not prevent the next one
                log.exception("message.count_defect")


MAX_CHARACTERS = 65_536
"""The maximum length of an encoded body and of each header; ours contain a few ids."""

UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""The errors of decoding JSON that may contain kombu's notation for dates and other types."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_IDS = {FAN_OUT: 1, ANALYZE_SLICE: MAX_SLICE, SYNTHESIZE: 1}
_CONTENT = ("application/json", "utf-8")
# Due times are in PostgreSQL; the only permitted callback is the synthesis.
_UNUSED_OPTIONS = ("callbacks", "errbacks")
_OPTIONS = (*_UNUSED_OPTIONS, "chain", "chord")
_UNUSED_HEADERS = ("eta", "expires", "compression", *_OPTIONS)
# Celery makes attributes of its request of all headers, and has methods and a state under these.
_RESERVED_HEADERS = (
    *("as_execution_options", "clear", "get", "update"),
    *("called_directly", "children", "headers", "is_eager"),
)
_FOLLOWER = ("task", "args", "kwargs", "options", "subtask_type", "immutable")
_FOLLOWER_OPTIONS = ("task_id", "reply_to", "group_id", "root_id", "parent_id")
_TEXTS = ("group", "root_id", "parent_id", "shadow", "lang", "origin", "argsrepr", "kwargsrepr")


class Rejection(StrEnum):
    """Why a message is dropped (docs/operations.md)."""

    ENVELOPE = "envelope"
    TOO_LARGE = "too_large"
    CONTENT_TYPE = "content_type"
    UNKNOWN_TASK = "unknown_task"
    OPTIONS = "options"
    BODY = "body"
    ARGUMENTS = "arguments"
    UNKNOWN_WORK = "unknown_work"


def rejection_of(message: object) -> Rejection | None:
    """Return why a message from the broker is foreign; `None` if it is Chordwise's."""
    if not isinstance(message, dict):
        return Rejection.ENVELOPE
    headers, body = message.get("headers"), message.get("body")
    if not isinstance(headers, dict) or not isinstance(body, str):
        return Rejection.ENVELOPE
    if not _is_deliverable(message.get("properties")):
        return Rejection.ENVELOPE
    if _is_too_large(body, headers):
        return Rejection.TOO_LARGE
    if (message.get("content-type"), message.get("content-encoding")) != _CONTENT:
        return Rejection.CONTENT_TYPE
    return _rejection_of_task(headers, body)


def _rejection_of_task(headers: dict[str, object], body: str) -> Rejection | None:
    task = headers.get("task")
    if not isinstance(task, str) or task not in _MAX_IDS:
        return Rejection.UNKNOWN_TASK
    if not (
        _is_id(headers.get("id"))
        and all(headers.get(name) is None for name in _UNUSED_HEADERS)
        and all(isinstance(headers.get(name), str | None) for name in _TEXTS)
        and headers.get("retries", 0) == 0
        and headers.get("timelimit", [None, None]) == [None, None]
        and not headers.get("stamps")
        and not headers.get("stamped_headers")
        and not any(name.startswith("_") or name in _RESERVED_HEADERS for name in headers)
        and isinstance(headers.get("group_index"), int | None)
        and isinstance(headers.get("ignore_result"), bool | None)
        and headers.get("replaced_task_nesting", 0) == 0
    ):
        return Rejection.OPTIONS
    try:
        decoded: object = json.loads(  # type: ignore[no-untyped-call]  # kombu names no types
            base64.b64decode(body, validate=True)
        )
    except UNREADABLE:
        return Rejection.BODY
    if not isinstance(decoded, list) or len(decoded) != len(("args", "kwargs", "options")):
        return Rejection.BODY
    return _rejection_of_call(task, *decoded)


def _rejection_of_call(
    task: str, arguments: object, keywords: object, options: object
) -> Rejection | None:
    if keywords != {} or not isinstance(options, dict) or not _are_chord_options(options):
        return Rejection.OPTIONS
    if not isinstance(arguments, list) or not 1 <= len(arguments) <= _MAX_IDS[task]:
        return Rejection.ARGUMENTS
    return None if all(_is_id(argument) for argument in arguments) else Rejection.ARGUMENTS


def _is_deliverable(properties: object) -> bool:
    """Return whether kombu finds what it needs to deliver a message and to return it."""
    if not isinstance(properties, dict) or properties.get("body_encoding") != "base64":
        return False
    route = properties.get("delivery_info")
    if not isinstance(route, dict) or not isinstance(properties.get("delivery_tag"), str):
        return False
    return all(isinstance(route.get(name), str) for name in ("exchange", "routing_key"))


def _is_too_large(body: str, headers: dict[str, object]) -> bool:
    if len(body) > MAX_CHARACTERS:
        return True
    try:
        return any(len(str(value)) > MAX_CHARACTERS for value in headers.values())
    except RecursionError:
        return True


def _are_chord_options(options: dict[str, object]) -> bool:
    """Return whether only the synthesis follows; a chord of one header becomes a chain."""
    chain = options.get("chain") or []
    if any(options.get(name) for name in _UNUSED_OPTIONS) or not isinstance(chain, list):
        return False
    following = [*chain, *([options["chord"]] if options.get("chord") else [])]
    return (
        set(options) <= set(_OPTIONS)
        and len(following) <= 1
        and all(_is_synthesis(callback) for callback in following)
    )


def _is_synthesis(follower: object) -> bool:
    """Return whether a message that Celery would send is one of Chordwise's syntheses.

    The same name could also have a group of other tasks, or another queue.
    """
    if not isinstance(follower, dict) or not set(follower) <= set(_FOLLOWER):
        return False
    arguments, options = follower.get("args"), follower.get("options")
    return (
        (follower.get("task"), follower.get("kwargs")) == (SYNTHESIZE, {})
        and (follower.get("subtask_type"), follower.get("immutable")) == (None, True)
        and isinstance(arguments, list)
        and len(arguments) == _MAX_IDS[SYNTHESIZE]
        and _is_id(arguments[0])
        and isinstance(options, dict)
        and set(options) <= set(_FOLLOWER_OPTIONS)
        and all(isinstance(value, str | None) for value in options.values())
    )


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
