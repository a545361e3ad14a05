"""`chordwise plan`: the memory and the speed of a model on hardware of one's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, TypeAlias

import typer

from chordwise.cli.application import EPILOG
from chordwise.cli.options import AsJson
from chordwise.cli.rendering import plans
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.plans import Plan
from chordwise.cli.rendering.screen import Screen
from chordwise.domain import sizing
from chordwise.domain.sizing import GIGA, TERA, Load, Machine, Model, Shape
from chordwise.errors import UsageError

Parameters: TypeAlias = Annotated[float, typer.Option(min=1e6, metavar="N", help="Such as 8e9.")]
Active: TypeAlias = Annotated[
    float | None,
    typer.Option(min=1e6, metavar="N", help="Parameters of a token (mixtures of experts)."),
]
ContextTokens: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Tokens of a request, the answer too.")
]
Parallel: TypeAlias = Annotated[int, typer.Option(min=1, help="Requests at the same time.")]
Bits: TypeAlias = Annotated[
    float, typer.Option(min=1, max=32, help="Bits of one weight; 4.8 for Q4_K_M.")
]
KvBits: TypeAlias = Annotated[float, typer.Option(min=1, max=32, help="Bits of one cached value.")]
OfTheShape: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Default: by the size.")]
Memory: TypeAlias = Annotated[float | None, typer.Option(min=0.1, help="GB that there are.")]
Bandwidth: TypeAlias = Annotated[float | None, typer.Option(min=0.1, help="GB/s of memory.")]
Compute: TypeAlias = Annotated[float | None, typer.Option(min=0.001, help="TFLOPS, dense.")]
PromptTokens: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Default: half the context.")
]
OutputTokens: TypeAlias = Annotated[int, typer.Option(min=1, help="Of one answer.")]
UsdPerHour: TypeAlias = Annotated[float | None, typer.Option(min=0, help="Of the machine.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EPILOG)(plan)


def plan(  # noqa: PLR0913 - a parameter is an option of the command
    *,
    parameters: Parameters,
    context: ContextTokens = 8192,
    parallel: Parallel = 16,
    bits: Bits = 16,
    kv_bits: KvBits = 16,
    active: Active = None,
    layers: OfTheShape = None,
    kv_heads: OfTheShape = None,
    head_size: OfTheShape = None,
    memory: Memory = None,
    bandwidth: Bandwidth = None,
    compute: Compute = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = 400,
    usd_per_hour: UsdPerHour = None,
    as_json: AsJson = False,
) -> None:
    """Estimate memory, speed and cost on your own hardware. docs/sizing.md has the formulas.

    chordwise plan --parameters 8e9 --context 8192 --parallel 16

    chordwise plan --parameters 30e9 --active 3e9 --bits 4.8 --memory 24 --bandwidth 1008
    """
    model = Model(
        parameters=parameters,
        active_parameters=active or parameters,
        shape=_shape(parameters, layers, kv_heads, head_size),
        weight_bits=bits,
        kv_bits=kv_bits,
    )
    load = _load(context, parallel, prompt_tokens, output_tokens)
    machine = _machine(bandwidth, compute, usd_per_hour)
    _show(plans.made(model, load, machine, None if memory is None else memory * GIGA), as_json)


def _show(made: Plan, as_json: bool) -> None:  # noqa: FBT001 - the option itself
    screen = Screen()
    if as_json:
        screen.write(document(**plans.members(made)))
    else:
        screen.show(*plans.laid_out(made))


def _shape(
    parameters: float, layers: int | None, kv_heads: int | None, head_size: int | None
) -> Shape:
    usual = sizing.usual_shape(parameters)
    is_own = layers is not None and kv_heads is not None and head_size is not None
    return Shape(
        parameters=parameters,
        layers=layers or usual.layers,
        kv_heads=kv_heads or usual.kv_heads,
        head_size=head_size or usual.head_size,
        source="" if is_own else usual.source,
    )


def _load(context: int, parallel: int, prompt_tokens: int | None, output_tokens: int) -> Load:
    prompt = prompt_tokens or max(1, min(context // 2, context - output_tokens))
    if prompt + output_tokens > context:
        raise UsageError(
            "Prompt and answer do not fit the context.",
            "Raise --context, or lower --prompt-tokens or --output-tokens.",
        )
    return Load(
        context_tokens=context,
        parallel=parallel,
        prompt_tokens=prompt,
        output_tokens=output_tokens,
    )


def _machine(bandwidth: float | None, compute: float | None, usd: float | None) -> Machine:
    return Machine(
        bandwidth=sizing.DEFAULT_BANDWIDTH if bandwidth is None else bandwidth * GIGA,
        compute=sizing.DEFAULT_COMPUTE if compute is None else compute * TERA,
        usd_per_hour=None if usd is None else Decimal(str(usd)),
    )
