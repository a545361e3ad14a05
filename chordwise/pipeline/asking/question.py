"""A question to a model, and the policy that says how much is tried until it is answered."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from chordwise.domain.grounding import Source
from chordwise.domain.tasks import AnalysisTask
from chordwise.llm.model import ChatModel
from chordwise.pipeline.asking.check import Judge
from chordwise.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPolicy:
    """How much is tried before a question is given up.

    `prompts` names the templates after the usual one, for answers that stay invalid. All calls and
    their waits together take `seconds`; after them no further prompt or model is tried, and none
    with less time than a request of the same question had that timed out. `require`
    is called before each request, and raises where the answer would be of no use any more.
    """

    prompts: tuple[str, ...] = ()
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic
    require: Callable[[], None] = lambda: None


ONE_PROMPT = AskingPolicy()


def policy_of(settings: Settings, require: Callable[[], None] = lambda: None) -> AskingPolicy:
    """Return the policy of the settings: `worker.chunk_seconds` and the further prompts.

    `require` raises once another worker has claimed the work: no further request is paid for then.
    """
    seconds = settings.worker.chunk_seconds
    return AskingPolicy(prompts=settings.prompts.fallback, seconds=seconds, require=require)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked, and how.

    The quotes of the answer are looked up in `source`. `judge` is called with every completion and
    what its check found.
    """

    model: ChatModel
    task: AnalysisTask
    source: Source
    judge: Judge
    policy: AskingPolicy = ONE_PROMPT
