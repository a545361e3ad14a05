"""Tests of estimates: memory and speed of models, and the calls and tokens of a run."""

from __future__ import annotations

import statistics
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest

from chordwise.domain import estimates, sizing
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.estimates import Interval
from chordwise.domain.sizing import Load, Machine, Model, Shape

LLAMA_3_8B = Model(
    parameters=8.03e9, active_parameters=8.03e9, shape=Shape(layers=32, kv_heads=8, head_size=128)
)
LOAD = Load(context_tokens=8_192, parallel=16, prompt_tokens=4_096, output_tokens=512)
MACHINE = Machine(bandwidth=2_000e9, compute=300e12)


@pytest.mark.parametrize(
    ("shape", "bits", "expected"),
    [
        (Shape(layers=32, kv_heads=8, head_size=128), 16, 131_072),  # Llama 3 8B
        (Shape(layers=32, kv_heads=8, head_size=128), 8, 65_536),
        (Shape(layers=32, kv_heads=32, head_size=128), 16, 524_288),  # Llama 2 7B: no grouping
        (Shape(layers=80, kv_heads=8, head_size=128), 16, 327_680),  # Llama 3 70B
    ],
)
def test_the_cache_size_of_a_token(shape: Shape, bits: float, expected: int) -> None:
    """It has the keys and values of every layer, as published for these models."""
    assert replace(LLAMA_3_8B, shape=shape, kv_bits=bits).kv_bytes_per_token == expected


def test_memory_adds_up() -> None:
    """Sixteen requests of 8,192 tokens need 16 GiB of cache and 16 GB of weights.

    Four-bit weights need a quarter of the memory; the cache does not change.
    """
    size = sizing.sizing(LLAMA_3_8B, LOAD, MACHINE)
    quantized = sizing.sizing(replace(LLAMA_3_8B, weight_bits=4), LOAD, MACHINE)

    assert size.weight_bytes == pytest.approx(16.06e9)
    assert size.kv_cache_bytes == quantized.kv_cache_bytes == 16 * 2**30
    assert size.total_bytes == pytest.approx(1.1 * (16.06e9 + 16 * 2**30))
    assert quantized.weight_bytes == size.weight_bytes / 4
    assert quantized.tokens_per_second > size.tokens_per_second


def test_one_stream_is_limited_by_memory_bandwidth() -> None:
    """At 70 % of 2,000 GB/s, 16 GB are read about 87 times per second."""
    alone = Load(context_tokens=8_192, parallel=1, prompt_tokens=1, output_tokens=1)

    size = sizing.sizing(LLAMA_3_8B, alone, MACHINE)

    assert size.bound_by == "bandwidth"
    assert size.tokens_per_second_per_stream == pytest.approx(1_400 / 16.06, rel=0.001)


def test_many_streams_are_limited_by_arithmetic() -> None:
    """If the weights are read once for thousands of short streams, arithmetic takes longer."""
    crowd = Load(context_tokens=64, parallel=5_000, prompt_tokens=8, output_tokens=8)

    size = sizing.sizing(LLAMA_3_8B, crowd, MACHINE)

    assert size.bound_by == "compute"
    assert size.tokens_per_second == pytest.approx(150e12 / (2 * 8.03e9))


def test_a_prompt_takes_two_operations_per_parameter_and_token() -> None:
    short, long = (LLAMA_3_8B.prompt_operations(n) for n in (100, 10_000))

    assert short == pytest.approx(2 * 8.03e9 * 100, rel=0.01)
    assert 1.05 * 100 * short < long < 1.2 * 100 * short


def test_a_mixture_of_experts_computes_with_active_parameters() -> None:
    mixture = replace(LLAMA_3_8B, parameters=80e9)
    alone = replace(LOAD, parallel=1)

    size = sizing.sizing(mixture, alone, MACHINE)
    dense = sizing.sizing(LLAMA_3_8B, alone, MACHINE)

    assert size.weight_bytes == 160e9
    assert size.tokens_per_second == dense.tokens_per_second


def test_cost_follows_from_throughput() -> None:
    size = sizing.sizing(LLAMA_3_8B, LOAD, replace(MACHINE, usd_per_hour=Decimal(2)))

    assert size.usd_per_thousand_documents is not None
    assert float(size.usd_per_thousand_documents) == pytest.approx(2_000 / size.documents_per_hour)
    assert sizing.sizing(LLAMA_3_8B, LOAD, MACHINE).usd_per_thousand_documents is None


def test_the_maximum_number_of_requests_fits() -> None:
    memory = 40e9

    most = sizing.max_parallel(LLAMA_3_8B, 8_192, memory)

    assert most > 0
    for parallel, fits in ((most, True), (most + 1, False)):
        size = sizing.sizing(LLAMA_3_8B, replace(LOAD, parallel=parallel), MACHINE)
        assert (size.total_bytes <= memory) is fits
    assert sizing.max_parallel(LLAMA_3_8B, 8_192, 8e9) == 0


@pytest.mark.parametrize(
    ("parameters", "source"),
    [
        (1.35e8, "SmolLM2-135M"),
        (7e9, "Llama-3-8B"),
        (7e10, "Llama-3-70B"),
        (1e12, "Llama-3.1-405B"),
    ],
)
def test_the_default_shape_is_that_of_a_model_of_its_size(parameters: float, source: str) -> None:
    assert sizing.usual_shape(parameters).source == source


def test_prediction_intervals_hold_in_nine_of_ten_cases() -> None:
    random = Random(7)  # noqa: S311 - the same draws in every run

    def draw(count: int) -> list[float]:
        return [random.gauss(400, 120) for _ in range(count)]

    inside = 0
    for _ in range(2_000):
        predicted = estimates.predicted(draw(8), 30)
        inside += predicted.low <= sum(draw(30)) <= predicted.high

    assert 0.88 <= inside / 2_000 <= 0.93


def test_more_observations_narrow_the_interval() -> None:
    few = estimates.predicted([100, 200, 300, 400, 500], 50)
    many = estimates.predicted([100, 200, 300, 400, 500] * 20, 50)

    assert few.typical == many.typical == 300 * 50
    assert many.high - many.low < few.high - few.low


def test_a_prediction_is_never_below_the_observed_minimum() -> None:
    assert estimates.predicted([10, 1_000, 20, 900, 15], 3).low >= 3 * 10


@pytest.mark.parametrize("kind", list(AnalysisType))
def test_default_intervals_are_wide_and_within_the_output_limit(kind: AnalysisType) -> None:
    assumed = estimates.assumed_answer_length(kind, 3_000, 512)

    assert 0 < assumed.low < assumed.typical <= assumed.high <= 512
    assert assumed.typical / assumed.low == pytest.approx(3)


def test_the_interval_of_repeats_narrows_with_the_history() -> None:
    some, many = estimates.repeats(20, 1), estimates.repeats(2_000, 100)

    assert estimates.repeats(0, 0) == estimates.ASSUMED_REPEATS
    assert some.typical == many.typical == 0.05
    assert some.low <= many.low < 0.05 < many.high < some.high
    assert estimates.repeats(50, 0).high > 0


@pytest.mark.parametrize(
    ("chunks", "room", "questions", "material"),
    [
        (1, 1_000, 0, 0),  # nothing to merge
        (5, 1_000, 1, 500),  # all in one question
        (20, 1_000, 3, 2_000 + 2 * 300),  # ten each, then both
        (21, 1_000, 3, 2_000 + 3 * 300),  # the last one is merged on the second level
        (4, 10, 3, 400 + 2 * 300),  # never fewer than two at a time
    ],
)
def test_syntheses_are_counted_by_level(
    chunks: int, room: float, questions: int, material: float
) -> None:
    """Each question merges as many answers as fit, until one answer is left."""
    syntheses = estimates.syntheses(chunks, 100, 300, room)

    assert (syntheses.questions, syntheses.material_tokens) == (questions, material)


def test_errors_of_a_sum_are_added() -> None:
    """Errors are treated as if they had the same sign."""
    one = Interval(low=1, typical=2, high=4)

    assert one + one == one.times(2) == Interval(low=2, typical=4, high=8)


def test_the_quantile_is_that_of_students_t_distribution() -> None:
    """Tables give 2.132 for four degrees of freedom and 1.660 for a hundred, at 90 %."""
    widths = []
    for count in (5, 101):
        observed = [float(n) for n in range(count)]
        predicted = estimates.predicted([x + 1e6 for x in observed], 1)
        scale = statistics.stdev(observed) * (1 + 1 / count) ** 0.5
        widths.append((predicted.high - predicted.typical) / scale)

    assert widths == pytest.approx([2.132, 1.660], abs=0.005)
