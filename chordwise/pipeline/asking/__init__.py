"""Asking one question: prompts, checks, repairs, the cascade, votes, critique and merging."""

from __future__ import annotations

from chordwise.domain.answers import Answer
from chordwise.pipeline.asking.cascade import ask_tiers
from chordwise.pipeline.asking.question import AskingPolicy, Question
from chordwise.pipeline.asking.votes import ask_by_vote, wants_votes

__all__ = ["AskingPolicy", "Question", "ask"]


def ask(question: Question) -> Answer:
    """Return the answer to a question.

    Where the task wants votes, several samples are asked and their vote is the answer. Each sample
    is asked of the tiers of the model, if it has any, until one answers well enough; and each tier
    is asked until its answer is valid and grounded, as the policy says.

    Raises:
        ModelError: No usable answer came; the subclass says why.
        AwaitingBatchError: An answer is still to come.
        LeaseLostError: Another worker has claimed the work, as the policy says.
    """
    return ask_by_vote(question) if wants_votes(question) else ask_tiers(question)
