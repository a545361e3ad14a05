"""Memory and speed of a self-hosted model, calculated; the sources are in docs/models.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

BITS_PER_BYTE = 8
GIGA = 1e9
TERA = 1e12
_HOUR_SECONDS = 3_600

RUNTIME_SHARE = 0.1
"""The memory of the runtime and the activations, as a share of weights and cache."""

MIN_RUNTIME_BYTES = 0.5e9
BANDWIDTH_SHARE = 0.7
"""The share of the memory bandwidth that reading weights reaches in practice."""

COMPUTE_SHARE = 0.5
"""The share of the peak arithmetic that a forward pass reaches in practice."""

DEFAULT_BANDWIDTH = 2_039e9
DEFAULT_COMPUTE = 312e12
DEFAULT_MACHINE = "one NVIDIA A100 of 80 GB (SXM data sheet: 2,039 GB/s, 312 TFLOPS in 16 bit)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions that determine the cache of a model; `source` names a model with them."""

    layers: int
    kv_heads: int
    head_size: int
    parameters: float = 0
    source: str = ""


# From the published configurations (config.json: num_hidden_layers, num_key_value_heads, head_dim).
SHAPES: Sequence[Shape] = (
    Shape(parameters=0.135e9, layers=30, kv_heads=3, head_size=64, source="SmolLM2-135M"),
    Shape(parameters=0.49e9, layers=24, kv_heads=2, head_size=64, source="Qwen2.5-0.5B"),
    Shape(parameters=1.24e9, layers=16, kv_heads=8, head_size=64, source="Llama-3.2-1B"),
    Shape(parameters=3.2e9, layers=28, kv_heads=8, head_size=128, source="Llama-3.2-3B"),
    Shape(parameters=8e9, layers=32, kv_heads=8, head_size=128, source="Llama-3-8B"),
    Shape(parameters=14.8e9, layers=40, kv_heads=8, head_size=128, source="Qwen3-14B"),
    Shape(parameters=32.8e9, layers=64, kv_heads=8, head_size=128, source="Qwen3-32B"),
    Shape(parameters=70.6e9, layers=80, kv_heads=8, head_size=128, source="Llama-3-70B"),
    Shape(parameters=405e9, layers=126, kv_heads=8, head_size=128, source="Llama-3.1-405B"),
)


def usual_shape(parameters: float) -> Shape:
    """Return the shape of a well-known model of about this size (by the ratio of the sizes)."""
    return min(SHAPES, key=lambda shape: abs(math.log(shape.parameters / parameters)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model: its parameters, the parameters used for each token, and the bits of each."""

    parameters: float
    active_parameters: float
    shape: Shape
    weight_bits: float = 16
    kv_bits: float = 16

    @property
    def weight_bytes(self) -> float:
        """Return the size of the weights."""
        return self.parameters * self.weight_bits / BITS_PER_BYTE

    @property
    def kv_bytes_per_token(self) -> float:
        """Return the cache size of one token: a key and a value for each head of each layer.

        Pope et al., Efficiently Scaling Transformer Inference, 2022 (arXiv 2211.05102).
        """
        shape = self.shape
        return 2 * shape.layers * shape.kv_heads * shape.head_size * self.kv_bits / BITS_PER_BYTE

    @property
    def width(self) -> float:
        """Return the width of a layer: parameters = 12 * layers * width squared (Kaplan)."""
        return math.sqrt(self.active_parameters / (12 * self.shape.layers))

    def prompt_operations(self, tokens: int) -> float:
        """Return the operations for reading a prompt of `tokens` tokens.

        Kaplan et al., Scaling Laws for Neural Language Models, 2020, arXiv 2001.08361, section 2.1.
        """
        attention = self.shape.layers * tokens * self.width
        return tokens * (2 * self.active_parameters + attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The peak performance of a machine: bytes read and operations per second."""

    bandwidth: float = DEFAULT_BANDWIDTH
    compute: float = DEFAULT_COMPUTE
    usd_per_hour: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load: `parallel` requests at once, each with room for `context_tokens`."""

    context_tokens: int
    parallel: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The result, in bytes, seconds and tokens; `usd_per_thousand_documents` may be unknown."""

    weight_bytes: float
    kv_bytes_per_token: float
    kv_cache_bytes: float
    runtime_bytes: float
    total_bytes: float
    first_token_seconds: float
    bound_by: str
    tokens_per_second_per_stream: float
    tokens_per_second: float
    tokens_per_second_by_bandwidth: float
    tokens_per_second_by_compute: float
    documents_per_hour: float
    usd_per_thousand_documents: Decimal | None


def sizing(model: Model, load: Load, machine: Machine) -> Sizing:
    """Return memory, speed and cost of a model on a machine under a load."""
    cache = model.kv_bytes_per_token * load.context_tokens * load.parallel
    runtime = max(MIN_RUNTIME_BYTES, RUNTIME_SHARE * (model.weight_bytes + cache))
    reading, computing = step_seconds(model, load, machine)
    step = max(reading, computing)
    answering = load.output_tokens * step / load.parallel
    documents = _HOUR_SECONDS / (_prompt_seconds(model, load, machine) + answering)
    rate = machine.usd_per_hour
    return Sizing(
        weight_bytes=model.weight_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        kv_cache_bytes=cache,
        runtime_bytes=runtime,
        total_bytes=model.weight_bytes + cache + runtime,
        first_token_seconds=first_token_seconds(model, load, machine),
        bound_by="bandwidth" if reading >= computing else "compute",
        tokens_per_second_per_stream=1 / step,
        tokens_per_second=load.parallel / step,
        tokens_per_second_by_bandwidth=load.parallel / reading,
        tokens_per_second_by_compute=load.parallel / computing,
        documents_per_hour=documents,
        usd_per_thousand_documents=None if rate is None else rate * 1000 / Decimal(documents),
    )


def first_token_seconds(model: Model, load: Load, machine: Machine) -> float:
    """Return the time to read a prompt on an idle machine, bound by compute or bandwidth."""
    reading_weights = model.weight_bytes / (machine.bandwidth * BANDWIDTH_SHARE)
    return max(_prompt_seconds(model, load, machine), reading_weights)


def step_seconds(model: Model, load: Load, machine: Machine) -> tuple[float, float]:
    """Return the time of one token for every stream: for reading memory, and for computing.

    The slower of the two counts (the roofline: Williams, Waterman and Patterson, 2009). A step
    reads the weights once for all streams, those of experts at most as often as streams use them,
    and the cache of every stream.
    """
    context = load.prompt_tokens + load.output_tokens / 2
    used = min(model.parameters, model.active_parameters * load.parallel)
    weights = used * model.weight_bits / BITS_PER_BYTE
    read = weights + model.kv_bytes_per_token * context * load.parallel
    computing = 2 * model.active_parameters * load.parallel / (machine.compute * COMPUTE_SHARE)
    return read / (machine.bandwidth * BANDWIDTH_SHARE), computing


def max_parallel(model: Model, context_tokens: int, memory_bytes: float) -> int:
    """Return how many requests fit into a memory beside the weights; 0 if none does."""
    usable = min(memory_bytes / (1 + RUNTIME_SHARE), memory_bytes - MIN_RUNTIME_BYTES)
    free = usable - model.weight_bytes
    return max(0, int(free // (model.kv_bytes_per_token * context_tokens)))


def _prompt_seconds(model: Model, load: Load, machine: Machine) -> float:
    return model.prompt_operations(load.prompt_tokens) / (machine.compute * COMPUTE_SHARE)
