"""A question for the batch lane: its answer where it has arrived, else it waits for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.llm.middleware.cached import key_of
from chordwise.llm.middleware.metered import CallStart, call_start
from chordwise.llm.model import Completion, CompletionRequest, Middleware
from chordwise.llm.pricing import BATCH, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchQuestion:
    """A request as it waits for its batch.

    `key` is the hash by which the cache knows it; `body` what the provider is sent; `max_usd` what
    it can cost at the price of batches, `None` where that is unknown. `is_compared` says that the
    ledger compares its cost with that of the largest tier.
    """

    key: str
    body: JsonObject
    max_usd: Decimal | None
    call: CallStart
    is_compared: bool


class BatchQueue(Protocol):
    """Where the questions of one chunk or synthesis wait for their batch, and their answers."""

    def answer(self, question: BatchQuestion) -> Completion | None:
        """Return the answer once it has arrived; `None` where the question is asked online.

        Raises:
            AwaitingBatchError: It waits, from now on or already.
            ModelError: The provider's answer was an error, or there is no money for the question.
            ConfigurationError: There is a cap, and an unknown price.
            ServiceUnavailableError: The queue is out of reach.
        """


@dataclass(slots=True, eq=False)
class Batched(Middleware):
    """Wraps an online model and its cache; asks it only where no batch request waits.

    So a question can be repeated: it finds its own answer, however often, and goes on from there.
    """

    queue: BatchQueue
    body: Callable[[CompletionRequest], JsonObject]
    price: Price
    about: JsonObject

    def complete(self, request: CompletionRequest) -> Completion:
        """Return what a batch has answered, or ask online where no batch will.

        Raises:
            AwaitingBatchError: The answer is still to come.
            ModelError: What the batch or the model inside says.
            ConfigurationError: There is a cap, and an unknown price.
        """
        route = request.route
        question = BatchQuestion(
            key=key_of(request, self.about),
            body=self.body(request),
            max_usd=self.price.max_usd(request, BATCH),
            call=call_start(self.profile, request),
            is_compared=route is not None and route.is_compared,
        )
        found = self.queue.answer(question)
        return self.model.complete(request) if found is None else found
