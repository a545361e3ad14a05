"""Operation: Estimate what a model needs on your own hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chordwise.cli.command import group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain import sizing
from chordwise.domain.money import dollars
from chordwise.domain.number_formats import counted
from chordwise.domain.sizing import GIGA, TERA, Load, Machine, Model, Shape
from chordwise.errors import UsageError

if TYPE_CHECKING:
    from chordwise.relations.relation import Row

OfTheShape: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Default: by the number of parameters.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options of the command: the load of the model, and the machine."""

    context: Annotated[int, typer.Option(min=1, help="Tokens of a request and its answer.")] = 8192
    parallel: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 16
    bits: Annotated[float, typer.Option(min=1, max=32, help="Bits per weight; 4.8 for Q4_K_M.")] = (
        16
    )
    kv_bits: Annotated[
        float, typer.Option(min=1, max=32, help="Bits per value in the KV cache.")
    ] = 16
    active: Annotated[
        float | None,
        typer.Option(
            min=1e6, metavar="N", help="Active parameters per token (mixture of experts)."
        ),
    ] = None
    layers: OfTheShape = None
    kv_heads: OfTheShape = None
    head_size: OfTheShape = None
    memory: Annotated[float | None, typer.Option(min=0.1, help="Available memory in GB.")] = None
    bandwidth: Annotated[float | None, typer.Option(min=0.1, help="Memory bandwidth in GB/s.")] = (
        None
    )
    compute: Annotated[float | None, typer.Option(min=0.001, help="Dense compute in TFLOPS.")] = (
        None
    )
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one prompt. Default: half the context.")
    ] = None
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one answer.")] = 400
    usd_per_hour: Annotated[float | None, typer.Option(min=0, help="Price of the machine.")] = None


def fit(
    invocation: Invocation,
    parameters: Annotated[
        float, typer.Argument(min=1e6, metavar="N", help="Parameters of the model, such as 8e9.")
    ],
    options: PlanOptions,
    *,
    as_json: AsJson = False,
) -> None:
    """Estimate memory, speed and cost on your own hardware. The formulas are in docs/models.md.

    chordwise models fit 8e9 --context 8192 --parallel 16

    chordwise models fit 30e9 --active 3e9 --bits 4.8 --memory 24 --bandwidth 1008
    """
    model, load = _model(parameters, options), _load(options)
    bandwidth, compute, usd = options.bandwidth, options.compute, options.usd_per_hour
    machine = Machine(
        bandwidth=sizing.DEFAULT_BANDWIDTH if bandwidth is None else bandwidth * GIGA,
        compute=sizing.DEFAULT_COMPUTE if compute is None else compute * TERA,
        usd_per_hour=None if usd is None else Decimal(str(usd)),
    )
    memory = None if options.memory is None else options.memory * GIGA
    plan: Row = {
        "model": model,
        "load": load,
        "machine": machine,
        "sizing": sizing.sizing(model, load, machine),
        "memory_bytes": memory,
        "max_parallel": sizing.max_parallel(model, load.context_tokens, memory) if memory else None,
    }
    if as_json:
        invocation.screen.write_json(**plan, assumptions=list(assumptions(plan)))
    else:
        invocation.screen.show(*render(plan))


_HELP = "Estimate what a model needs on your own hardware.\n\nchordwise models fit 8e9"
models = group(_HELP, fit=fit)


def _model(parameters: float, options: PlanOptions) -> Model:
    usual = sizing.usual_shape(parameters)
    is_own = None not in (options.layers, options.kv_heads, options.head_size)
    shape = Shape(
        parameters=parameters,
        layers=options.layers or usual.layers,
        kv_heads=options.kv_heads or usual.kv_heads,
        head_size=options.head_size or usual.head_size,
        source="" if is_own else usual.source,
    )
    return Model(
        parameters=parameters,
        active_parameters=options.active or parameters,
        shape=shape,
        weight_bits=options.bits,
        kv_bits=options.kv_bits,
    )


def _load(options: PlanOptions) -> Load:
    context, answer = options.context, options.output_tokens
    prompt = options.prompt_tokens or max(1, min(context // 2, context - answer))
    if prompt + answer > context:
        raise UsageError(
            "Prompt and answer do not fit the context.",
            "Raise --context, or lower --prompt-tokens or --output-tokens.",
        )
    return Load(
        context_tokens=context,
        parallel=options.parallel,
        prompt_tokens=prompt,
        output_tokens=answer,
    )


_KIBI = 1024
_TEN = 10


def render(plan: Row) -> Iterator[RenderableType]:
    """Return the estimate, followed by every assumption."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _rows(plan):
        table.add_row(name, value)
    yield table
    yield Text("Assumed:", style="bold")
    yield from (Text(f"- {assumption}", style="dim") for assumption in assumptions(plan))


def assumptions(plan: Row) -> Iterator[str]:
    """Return the assumptions behind the numbers, one sentence each."""
    model, load, machine = plan["model"], plan["load"], plan["machine"]
    shape = model.shape
    origin = f" (values not given: those of {shape.source})" if shape.source else ""
    yield f"{shape.layers} layers, {shape.kv_heads} KV heads of size {shape.head_size}{origin}."
    yield f"Weights of {model.weight_bits:g} bits, cached values of {model.kv_bits:g} bits."
    prompt, answer = f"{load.prompt_tokens:,}", f"{load.output_tokens:,}"
    yield f"Each document is one prompt of {prompt} tokens with an answer of {answer} tokens."
    if machine.bandwidth == sizing.DEFAULT_BANDWIDTH or machine.compute == sizing.DEFAULT_COMPUTE:
        yield f"Machine values that are not given are those of {sizing.DEFAULT_MACHINE}."
    yield (
        f"{sizing.BANDWIDTH_SHARE:.0%} of the bandwidth and {sizing.COMPUTE_SHARE:.0%} of the "
        f"compute are used; runtime and activations take {sizing.RUNTIME_SHARE:.0%} more memory, "
        f"at least {sizing.MIN_RUNTIME_BYTES / GIGA:g} GB."
    )
    yield "All requests run concurrently with continuous batching; no prompt is cached."


def _rows(plan: Row) -> Iterator[tuple[str, str]]:
    sizes, machine = plan["sizing"], plan["machine"]
    yield "Weights", _gigabytes(sizes.weight_bytes)
    yield "KV cache per token", f"{sizes.kv_bytes_per_token / _KIBI:,.4g} KiB"
    yield "KV cache of all requests", _gigabytes(sizes.kv_cache_bytes)
    yield "Runtime and activations", _gigabytes(sizes.runtime_bytes)
    yield "Memory in total", _gigabytes(sizes.total_bytes)
    if (memory := plan["memory_bytes"]) is not None:
        fits = "fits" if sizes.total_bytes <= memory else "does not fit"
        requests = counted(plan["max_parallel"] or 0, "concurrent request")
        yield f"In {_gigabytes(memory)}", f"{fits}; at most {requests}"
    bandwidth, compute = machine.bandwidth / GIGA, machine.compute / TERA
    yield "Bandwidth, compute", f"{bandwidth:,.0f} GB/s, {compute:,.4g} TFLOPS"
    yield "Time to first token, idle", f"{sizes.first_token_seconds:,.2f} s"
    yield "Tokens per second, each", _rounded(sizes.tokens_per_second_per_stream)
    total = f"{_rounded(sizes.tokens_per_second)} (limited by {sizes.bound_by})"
    yield "Tokens per second, total", total
    yield "Documents per hour", _rounded(sizes.documents_per_hour)
    if sizes.usd_per_thousand_documents is not None:
        yield "Cost of 1,000 documents", dollars(sizes.usd_per_thousand_documents)


def _gigabytes(size: float) -> str:
    return f"{size / GIGA:,.1f} GB"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= _TEN else f"{number:.2g}"
