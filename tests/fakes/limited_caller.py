"""A process of many threads that ask a model within shared limits, one question after the other.

`python -m tests.fakes.limited_caller PROVIDER BASE_URL BROKER_URL SECONDS` prints what came of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

from pydantic import SecretStr

from chordwise.errors import ModelError
from chordwise.llm.limits.permits import Priority
from chordwise.llm.limits.shared import open_client, open_limits
from chordwise.llm.middleware.rate_limited import RateLimited
from chordwise.llm.middleware.retrying import Retrying
from chordwise.llm.model import ChatModel
from chordwise.llm.providers import connect
from chordwise.settings import LimitSettings, ModelSettings, RetrySettings
from tests.fakes.completion_requests import a_request

THREADS = 16


def limited_model(provider: str, base_url: str, broker_url: str) -> ChatModel:
    """Return the client of a provider as production puts it together, without a ledger."""
    given = {"provider": provider, "model": "m", "base_url": base_url, "max_output_tokens": 64}
    settings, key = ModelSettings.model_validate(given), SecretStr("key")
    policy = LimitSettings()
    limits = open_limits(policy, settings, key, open_client(SecretStr(broker_url)))
    wait = time.sleep  # noqa: TID251 - real waits
    limited = RateLimited(
        connect(settings, key), limits, Priority.INTERACTIVE, policy.longest_wait_seconds, wait
    )
    return Retrying(limited, RetrySettings(), wait, Random())  # noqa: S311 - jitter only


def ask_until(model: ChatModel, ends_at: float) -> Iterator[str]:
    """Ask again and again; yield what each question came to."""
    number = 0
    while time.monotonic() < ends_at:
        number += 1
        try:
            model.complete(a_request(user=f"Question {number}."))
            yield "answered"
        except ModelError as error:
            yield error.code


def main(provider: str, base_url: str, broker_url: str, seconds: str) -> None:
    """Ask with all threads for so many seconds."""
    model = limited_model(provider, base_url, broker_url)
    ends_at = time.monotonic() + float(seconds)
    with ThreadPoolExecutor(THREADS) as threads:
        asked = [threads.submit(lambda: list(ask_until(model, ends_at))) for _ in range(THREADS)]
    outcomes = Counter(outcome for future in asked for outcome in future.result())
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
