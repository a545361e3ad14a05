"""Asking several questions whose answers may come with a batch: all of them into the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from chordwise.errors import AwaitingBatchError

Answered = TypeVar("Answered")


def every(questions: Iterable[Callable[[], Answered]]) -> list[Answered]:
    """Return all answers in order; where some wait for a batch, the others are asked all the same.

    Raises:
        AwaitingBatchError: The first of those that wait.
    """
    answers: list[Answered] = []
    waiting: list[AwaitingBatchError] = []
    for question in questions:
        try:
            answers.append(question())
        except AwaitingBatchError as error:
            waiting.append(error)
    if waiting:
        raise waiting[0]
    return answers
