"""Messages as another program may write them to the broker: forged, malformed, oversized."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Iterator

from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.pipeline.runtime.messages import (
    ANALYZE_SLICE,
    CHUNK_QUEUE,
    FAN_OUT,
    MAX_SLICE,
    SYNTHESIZE,
)

CANARY = "c4n4ryWord"


def encoded(body: JsonValue) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def envelope(task: str, arguments: JsonValue, **changes: JsonValue) -> JsonObject:
    """Return a message as Celery writes it, with changed members of its headers or its envelope."""
    id_ = str(uuid.uuid4())
    headers: JsonObject = {"task": task, "id": id_, "timelimit": [None, None], "retries": 0}
    whole: JsonObject = {
        "body": encoded([arguments, {}, {"callbacks": None, "chain": None, "chord": None}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": CHUNK_QUEUE},
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    for name, value in changes.items():
        (whole if name in whole else headers)[name.replace("content_", "content-")] = value
    return whole


def an_id() -> str:
    return str(uuid.uuid4())


def pickled() -> JsonObject:
    """Return a message with a pickled body, which could run code when unpickled."""
    body = base64.b64encode(pickle.dumps(((CANARY,), {}, {}))).decode()
    whole = envelope(FAN_OUT, [])
    return {**whole, "body": body, "content-type": "application/x-python-serialize"}


FORGED: tuple[tuple[str, JsonValue], ...] = (
    ("envelope", "no object"),
    ("envelope", {"body": CANARY}),
    ("envelope", {**envelope(FAN_OUT, [an_id()]), "properties": {}}),
    ("envelope", {"__type__": "unheard of", "__value__": CANARY}),
    ("too_large", envelope(FAN_OUT, [CANARY * 1_000_000])),
    ("too_large", envelope(FAN_OUT, [an_id()], argsrepr=CANARY * 10_000)),
    ("content_type", pickled()),
    ("unknown_task", envelope(f"os.{CANARY}", [an_id()])),
    ("unknown_task", envelope("celery.backend_cleanup", [])),
    ("options", envelope(FAN_OUT, [an_id()], eta="2999-01-01T00:00:00")),
    ("options", envelope(FAN_OUT, [an_id()], timelimit=CANARY)),
    ("options", envelope(FAN_OUT, [an_id()], compression="gzip")),
    ("options", envelope(FAN_OUT, [], body=encoded([[an_id()], {}, {"chord": {"task": CANARY}}]))),
    ("body", envelope(FAN_OUT, [], body=base64.b64encode(CANARY.encode()).decode())),
    ("body", envelope(FAN_OUT, [], body=encoded({"args": [an_id()]}))),
    ("arguments", envelope(FAN_OUT, [CANARY])),
    ("arguments", envelope(FAN_OUT, [f"{an_id()}'; DROP TABLE jobs; --{CANARY}"])),
    ("arguments", envelope(FAN_OUT, [{"id": an_id()}])),
    ("arguments", envelope(ANALYZE_SLICE, [])),
    ("arguments", envelope(ANALYZE_SLICE, [an_id() for _ in range(MAX_SLICE + 1)])),
    ("arguments", envelope(ANALYZE_SLICE, [1, 2])),
    ("unknown_work", envelope(FAN_OUT, [an_id()])),
    ("unknown_work", envelope("chordwise.synthesize", [an_id()])),
    ("unknown_work", envelope(ANALYZE_SLICE, [an_id()])),
)


def malformed_messages(job_id: str, chunk_id: str) -> Iterator[JsonObject]:
    """Yield messages for existing work that try to crash Celery or to call other tasks."""
    ids: list[JsonValue] = [chunk_id]
    synthesis: JsonObject = {
        "task": SYNTHESIZE,
        "args": [job_id],
        "kwargs": {},
        "options": {"task_id": an_id()},
        "subtask_type": None,
        "immutable": True,
    }
    other: JsonObject = {"task": f"os.{CANARY}", "args": [], "kwargs": {}, "options": {}}
    followers: tuple[JsonObject, ...] = (
        {"task": SYNTHESIZE},
        {**synthesis, "args": CANARY},
        {**synthesis, "kwargs": {"tasks": [other]}, "subtask_type": "group"},
        {**synthesis, "options": {"queue": CANARY}},
        {**synthesis, "options": {"countdown": CANARY}},
        {**synthesis, "immutable": False},
    )
    for follower in followers:
        for place in ("chord", "chain"):
            content: JsonValue = [follower] if place == "chain" else follower
            yield envelope(ANALYZE_SLICE, [], body=encoded([ids, {}, {place: content}]))
    for name in ("get", "id", "group", "delivery_info", "called_directly"):
        yield envelope(ANALYZE_SLICE, [], body=encoded([ids, {}, {name: CANARY}]))
    for name in ("get", "update", "_children", "children", "is_eager", "__class__"):
        yield envelope(ANALYZE_SLICE, ids, **{name: CANARY})
    for place in ("chain", "chord", "callbacks", "errbacks"):
        yield envelope(ANALYZE_SLICE, [], body=encoded([ids, {}, {}]), **{place: other})
    yield envelope(ANALYZE_SLICE, ids, group=an_id(), group_index=CANARY)
    yield envelope(ANALYZE_SLICE, ids, group=an_id(), group_index={})
    yield envelope(ANALYZE_SLICE, ids, replaced_task_nesting=CANARY)
    yield envelope(ANALYZE_SLICE, ids, ignore_result=CANARY)
