"""Asks one question: prompts, checks, repair, the cascade, votes, critique and merging."""

from __future__ import annotations

from chordwise.domain.answers import Answer
from chordwise.pipeline.asking.cascade import ask_tiers
from chordwise.pipeline.asking.question import AskingPolicy, Question
from chordwise.pipeline.asking.votes import ask_by_vote, wants_votes

__all__ = ["AskingPolicy", "Question", "ask"]


def ask(question: Question) -> Answer:
    """Return the answer to a question.

    If the task asks for votes, several samples are requested and their majority is the answer. Each
    sample is requested from the tiers of the model in turn until an answer is good enough, and from
    each tier until an answer is valid and grounded, within the limits of the policy.

    Raises:
        ModelError: No usable answer was received; the subclass gives the reason.
        AwaitingBatchError: An answer is still expected from a batch.
        LeaseLostError: Another worker has claimed the work.
    """
    return ask_by_vote(question) if wants_votes(question) else ask_tiers(question)
