"""What a message of ours looks like: real ones pass, and whatever is bent is named."""

from __future__ import annotations

import base64
import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.forged_messages import bent
from worker.rejections import MAX_CHARACTERS, Rejection, reason_against

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
    """Return a message as Celery writes it for a chunk."""
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
    """It carries the synthesis of its job along, be it the only one."""
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]

    assert reason_against(a_message()) is None
    assert reason_against(a_message([ids, {}, {"chain": [SYNTHESIS]}])) is None


def test_what_would_call_other_tasks_does_not_pass() -> None:
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    other = {**SYNTHESIS, "task": "celery.chord_unlock"}
    options = [{"chain": [other]}, {"chain": [SYNTHESIS, SYNTHESIS]}, {"chord": other}]
    options += [{"callbacks": [SYNTHESIS]}, {"errbacks": [SYNTHESIS]}, {"chain": other}]

    assert {reason_against(a_message([ids, {}, each])) for each in options} == {Rejection.OPTIONS}


def test_right_ids_do_not_let_other_options_through() -> None:
    """What Celery would stumble over, or call besides, is a reason although there is such work."""
    messages = list(bent(str(uuid.uuid4()), str(uuid.uuid4())))

    passed = [each for each in messages if reason_against(each) is not Rejection.OPTIONS]

    assert len(messages) > 20
    assert passed == []


def test_the_limit_of_size_is_looked_at_before_decoding() -> None:
    """What is too large is not even base64."""
    large = {**a_message(), "body": "*" * (MAX_CHARACTERS + 1)}
    just_fits = {**a_message(), "body": "*" * MAX_CHARACTERS}

    assert reason_against(large) is Rejection.TOO_LARGE
    assert reason_against(just_fits) is Rejection.BODY


MEMBERS = ("body", "headers", "properties", "content-type", "content-encoding")


@given(st.sampled_from(MEMBERS), JSON)
def test_nothing_raises_whatever_the_message(name: str, value: object) -> None:
    """Everything that JSON can say has a reason against it: as a message, a body or a member."""
    whole = a_message()
    body = base64.b64encode(json.dumps(value).encode()).decode()

    assert reason_against(value) is not None
    assert reason_against({**whole, "body": body}) is not None
    if value != whole[name]:
        assert reason_against({**whole, name: value}) is not None
