"""The batch lane: returns a question's answer from a batch, or raises until it has arrived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.llm.middleware.cached import key_of
from chordwise.llm.middleware.metered import CallStart, call_start
from chordwise.llm.model import Completion, CompletionRequest, Middleware
from chordwise.llm.prices import BATCH, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchQuestion:
    """A request that waits for its batch.

    `key` is its hash in the cache, `body` the body for the provider. `max_usd` is its maximum cost
    at batch prices, `None` if the price is unknown. `is_compared` means that the ledger compares
    its cost with that of the largest tier.
    """

    key: str
    body: JsonObject
    max_usd: Decimal | None
    call: CallStart
    is_compared: bool


class BatchQueue(Protocol):
    """Holds the questions of one chunk or synthesis until their batch is answered."""

    def answer(self, question: BatchQuestion) -> Completion | None:
        """Return the answer once it has arrived; `None` if the question is asked online.

        Raises:
            AwaitingBatchError: The question was queued now, or is still waiting.
            ModelError: The provider answered with an error, or the budget does not suffice.
            ConfigurationError: There is a cap, and the price is unknown.
            ServiceUnavailableError: The queue is unavailable.
        """


@dataclass(slots=True, eq=False)
class Batched(Middleware):
    """Wraps an online model and its cache, which are used only if no batch request waits."""

    queue: BatchQueue
    body: Callable[[CompletionRequest], JsonObject]
    price: Price
    about: JsonObject

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the answer from the batch, or ask online if the question is not in the batch lane.

        Raises:
            AwaitingBatchError: The answer has not arrived yet.
            ModelError: The error of the batch or of the wrapped model.
            ConfigurationError: There is a cap, and the price is unknown.
        """
        route = request.route
        question = BatchQuestion(
            key=key_of(request, self.about),
            body=self.body(request),
            max_usd=self.price.max_usd(request, BATCH),
            call=call_start(self.profile, request),
            is_compared=route is not None and route.is_compared,
        )
        completion = self.queue.answer(question)
        return self.model.complete(request) if completion is None else completion
