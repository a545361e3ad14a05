"""Simulations of hundreds of workers in virtual time with the real script on a real Valkey.

`pytest -m thorough` on this file runs every number of workers and every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from itertools import product
from random import Random
from typing import TypeAlias

import pytest
import redis
from pydantic import SecretStr

from chordwise.llm.limits.permits import LimitPolicy, Priority, QuotaKind
from chordwise.llm.limits.shared_limits import ModelEndpoint, SharedLimits
from chordwise.settings import ModelSettings
from tests.fakes.simulated_provider import Bucket, SimulatedProvider, Simulation, Tally

WARM_UP = 60.0
END = 200.0
PER_SECOND = 10.0
TOKENS_PER_CALL = 2_000
WORKERS = (120, 240, 300, 400)
SEEDS = (1, 2, 3, 4, 5)

pytestmark = pytest.mark.nightly


def minute(per_minute: float = 60 * PER_SECOND, capacity: float | None = None) -> Bucket:
    """Return a bucket that is full at first, for a whole minute unless a capacity is given."""
    return Bucket(per_minute=per_minute, capacity=per_minute if capacity is None else capacity)


def requests(capacity: float | None = None) -> Mapping[QuotaKind, Bucket]:
    return {QuotaKind.REQUESTS: minute(capacity=capacity)}


def tokens() -> Mapping[QuotaKind, Bucket]:
    """Return a limit of tokens that allows the same number of calls."""
    return {QuotaKind.TOKENS: minute(60 * PER_SECOND * TOKENS_PER_CALL)}


def simulated(
    valkey: redis.Redis,
    provider: SimulatedProvider,
    policy: LimitPolicy | None = None,
    lanes: Mapping[Priority, int] | None = None,
    seconds: float = END,
    rest: tuple[float, float] = (0.0, 0.0),
) -> Tally:
    """Let more than a hundred workers call a provider for some minutes."""
    simulation = Simulation(provider, lanes or {Priority.INTERACTIVE: 120}, rest)
    model = ModelSettings(provider="openai", model="m")
    endpoint = ModelEndpoint.of(model, SecretStr("key"))
    limits = SharedLimits(valkey, endpoint, policy or LimitPolicy(), simulation.clock)
    return simulation.run(limits, seconds)


def a_random(seed: int = 1) -> Random:
    return Random(seed)  # noqa: S311 - no secrecy needed


def seeded(provider: SimulatedProvider, seed: int) -> SimulatedProvider:
    copied = deepcopy(provider)
    copied.random = a_random(seed)
    return copied


Case: TypeAlias = tuple[str | float, int, int]


def cases(names: Iterable[str | float], workers: Iterable[int], *routine: Case) -> list[object]:
    """Return each name with each number of workers and each seed; most are thorough."""
    return [
        pytest.param(*case, marks=[] if case in routine else [pytest.mark.thorough])
        for case in product(names, workers, SEEDS)
    ]


UNKNOWN = {
    "a minute at once, then the pace": SimulatedProvider(random=a_random(), buckets=requests()),
    "no Retry-After": SimulatedProvider(random=a_random(), buckets=requests(), retry_after=False),
    "half a second at once": SimulatedProvider(random=a_random(), buckets=requests(capacity=5)),
    "tokens": SimulatedProvider(random=a_random(), buckets=tokens()),
    "twenty calls at the same time": SimulatedProvider(
        random=a_random(), slots=20, latency_seconds=2
    ),
}


@pytest.mark.parametrize(
    ("name", "workers", "seed"),
    cases(
        UNKNOWN,
        WORKERS,
        ("a minute at once, then the pace", 120, 1),
        ("no Retry-After", 240, 2),
        ("half a second at once", 120, 1),
        ("half a second at once", 400, 1),
        ("tokens", 120, 1),
        ("twenty calls at the same time", 120, 1),
        ("twenty calls at the same time", 120, 3),
        ("twenty calls at the same time", 300, 5),
    ),
)
def test_unknown_limits_are_found(valkey: redis.Redis, name: str, workers: int, seed: int) -> None:
    tally = simulated(valkey, seeded(UNKNOWN[name], seed), lanes={Priority.INTERACTIVE: workers})

    assert tally.rate(WARM_UP, END) >= 0.9 * PER_SECOND
    assert tally.refused_share(WARM_UP, END) < 0.02


@pytest.mark.parametrize(
    ("name", "workers", "seed"),
    cases(
        ["half a second at once", "a minute at once, then the pace"],
        WORKERS,
        ("half a second at once", 120, 1),
        ("a minute at once, then the pace", 300, 2),
    ),
)
def test_limits_are_kept_in_pauses(valkey: redis.Redis, name: str, workers: int, seed: int) -> None:
    """Unused capacity counts neither as refused nor as the rate."""
    provider = seeded(UNKNOWN[name], seed)
    rest = (100.0, 200.0)

    tally = simulated(valkey, provider, None, {Priority.INTERACTIVE: workers}, 360, rest)

    assert tally.rate(rest[1], 360) >= 0.9 * PER_SECOND
    assert tally.refused_share(rest[1], 360) < 0.02


KNOWN = {
    "from the settings": (
        SimulatedProvider(random=a_random(), buckets=requests()),
        LimitPolicy(requests_per_minute=int(60 * PER_SECOND)),
    ),
    "from the headers": (
        SimulatedProvider(random=a_random(), buckets=requests(), tells=True),
        LimitPolicy(),
    ),
    "tokens, from the headers, and long answers": (
        SimulatedProvider(random=a_random(), buckets=tokens(), tells=True, latency_seconds=5),
        LimitPolicy(),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_limits_are_kept_from_the_start(valkey: redis.Redis, name: str) -> None:
    provider, policy = deepcopy(KNOWN[name])

    tally = simulated(valkey, provider, policy)

    assert tally.rate(WARM_UP, END) >= 0.95 * PER_SECOND
    assert tally.refused == []


def test_a_limit_narrower_than_in_the_headers_is_found(valkey: redis.Redis) -> None:
    """Headers give limits per minute, and the provider enforces them by fractions of a second."""
    provider = SimulatedProvider(random=a_random(), buckets=requests(capacity=3), tells=True)

    tally = simulated(valkey, provider)

    assert tally.rate(WARM_UP, END) >= 0.9 * PER_SECOND
    assert tally.refused_share(WARM_UP, END) < 0.02


def test_nightly_work_gets_only_its_share(valkey: redis.Redis) -> None:
    provider = SimulatedProvider(random=a_random(), buckets=requests(), tells=True)
    lanes = {Priority.INTERACTIVE: 100, Priority.NIGHTLY: 100}

    tally = simulated(valkey, provider, lanes=lanes)

    nightly = tally.rate(WARM_UP, END, Priority.NIGHTLY)
    assert tally.rate(WARM_UP, END) >= 0.95 * PER_SECOND
    assert 0.02 * PER_SECOND < nightly < 0.1 * PER_SECOND


def test_nightly_work_gets_the_whole_limit_when_it_is_alone(valkey: redis.Redis) -> None:
    provider = SimulatedProvider(random=a_random(), buckets=requests(), tells=True)

    tally = simulated(valkey, provider, lanes={Priority.NIGHTLY: 100})

    assert tally.rate(WARM_UP, END) >= 0.95 * PER_SECOND


def test_an_outage_costs_few_calls_and_ends_soon(valkey: redis.Redis) -> None:
    """A minute of failures costs the breaker's limit and a few probes.

    The calls in flight when the breaker opened fail, too. A minute after the outage the rate has
    recovered.
    """
    outage = (60.0, 120.0)
    provider = SimulatedProvider(random=a_random(), buckets=requests(), tells=True, outage=outage)

    tally = simulated(valkey, provider, lanes={Priority.INTERACTIVE: 100})

    assert len(tally.failed) < 6 + 16
    assert tally.rate(outage[1] + 60, END) >= 0.95 * PER_SECOND


@pytest.mark.parametrize("begins_at", [0.0, 60.0])
def test_a_storm_of_refusals_costs_few_calls_and_is_recovered_from(
    valkey: redis.Redis, begins_at: float
) -> None:
    """After five minutes of refusals the rate recovers within eight minutes.

    Each pause costs one call that checks whether it is over, besides the calls in flight at first.
    """
    ends_at = begins_at + 300
    storm = (begins_at, ends_at)
    provider = SimulatedProvider(random=a_random(), buckets=requests(), storm=storm)

    tally = simulated(valkey, provider, seconds=ends_at + 480)

    refused = sum(begins_at <= at < ends_at for at in tally.refused)
    assert refused <= 1.2 * (ends_at - begins_at) / provider.storm_pause_seconds + 16
    assert tally.rate(ends_at + 420, ends_at + 480) >= 0.9 * PER_SECOND


@pytest.mark.parametrize(
    ("per_second", "workers", "seed"),
    cases([0.3, 1.0, 5.0], (8, 120), (0.3, 8, 1), (0.3, 120, 1), (1.0, 8, 1), (5.0, 8, 1)),
)
def test_a_permanently_low_limit_is_rarely_exceeded(
    valkey: redis.Redis, per_second: float, workers: int, seed: int
) -> None:
    """The rate is used, and fewer than 2 % of the calls test whether it still applies."""
    buckets = {QuotaKind.REQUESTS: minute(60 * per_second)}
    provider = SimulatedProvider(random=a_random(seed), buckets=buckets)

    tally = simulated(valkey, provider, lanes={Priority.INTERACTIVE: workers}, seconds=1_000)

    assert tally.rate(WARM_UP, 1_000) >= 0.9 * per_second
    assert tally.refused_share(WARM_UP, 1_000) < 0.02
