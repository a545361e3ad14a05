"""Tests of validating messages: genuine ones pass, and the defect of others is named."""

from __future__ import annotations

import base64
import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.forged_messages import malformed_messages
from worker.rejections import MAX_CHARACTERS, Rejection, rejection_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SYNTHESIS = {
    "task": "chordwise.synthesize",
    "args": [str(uuid.uuid4())],
    "kwargs": {},
    "options": {"task_id": str(uuid.uuid4()), "reply_to": str(uuid.uuid4())},
    "subtask_type": None,
    "immutable": True,
}


def a_message(body: object = None, **headers: object) -> dict[str, object]:
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    content = [ids, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": SYNTHESIS}]
    return {
        "body": base64.b64encode(json.dumps(body or content).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "chordwise.analyze_slice", "id": str(uuid.uuid4()), **headers},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "chordwise.chunks"},
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def test_a_header_of_a_chord_passes() -> None:
    """It has the synthesis of its job as its chord, also as the only task of the header."""
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]

    assert rejection_of(a_message()) is None
    assert rejection_of(a_message([ids, {}, {"chain": [SYNTHESIS]}])) is None


def test_messages_with_valid_ids_and_other_options_are_rejected() -> None:
    """These are options that make Celery fail or call other tasks."""
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    other = {**SYNTHESIS, "task": "celery.chord_unlock"}
    options: list[object] = [
        *({"chain": [other]}, {"chain": [SYNTHESIS, SYNTHESIS]}, {"chord": other}),
        *({"callbacks": [SYNTHESIS]}, {"errbacks": [SYNTHESIS]}, {"chain": other}),
    ]
    messages: list[object] = [a_message([ids, {}, option]) for option in options]
    messages += malformed_messages(*ids)

    passed = [message for message in messages if rejection_of(message) is not Rejection.OPTIONS]

    assert len(messages) > 26
    assert passed == []


def test_the_size_limit_is_checked_before_decoding() -> None:
    large = {**a_message(), "body": "*" * (MAX_CHARACTERS + 1)}
    just_fits = {**a_message(), "body": "*" * MAX_CHARACTERS}

    assert rejection_of(large) is Rejection.TOO_LARGE
    assert rejection_of(just_fits) is Rejection.BODY


MEMBERS = ("body", "headers", "properties", "content-type", "content-encoding")


@given(st.sampled_from(MEMBERS), JSON)
def test_any_other_json_is_rejected_without_an_error(name: str, value: object) -> None:
    whole = a_message()
    body = base64.b64encode(json.dumps(value).encode()).decode()

    assert rejection_of(value) is not None
    assert rejection_of({**whole, "body": body}) is not None
    if value != whole[name]:
        assert rejection_of({**whole, name: value}) is not None
