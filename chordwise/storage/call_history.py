"""What earlier calls took: the ledger as experience for quotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from chordwise.domain.tasks import AnalysisType, Stage
from chordwise.storage.model_calls import ModelCall

_NEWEST = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHistory:
    """Of one kind of question to one model: the answers' tokens, and how many were repeated."""

    output_tokens: Sequence[int] = ()
    asked: int = 0
    repeated: int = 0


def read(
    session: Session, analysis_type: AnalysisType, stage: Stage, provider: str, model: str
) -> CallHistory:
    """Return what the newest answers to such questions took."""
    kind = (
        _name().in_((f"{analysis_type}.{stage}", f"{analysis_type}.schema.{stage}")),
        ModelCall.provider == provider,
        ModelCall.model == model,
        ModelCall.output_tokens.is_not(None),
        ~ModelCall.cache_hit,
        ModelCall.error_code.is_(None),
    )
    newest = (
        select(ModelCall.stage, ModelCall.output_tokens)
        .where(*kind)
        .order_by(ModelCall.id.desc())
        .limit(_NEWEST)
    )
    rows = session.execute(newest).all()
    first = [row.output_tokens for row in rows if row.stage == stage]
    repeated = sum(row.stage == Stage.REPAIR for row in rows)
    return CallHistory(output_tokens=first, asked=len(first), repeated=repeated)


def _name() -> ColumnElement[str]:
    """Return the template's name: its version without the number."""
    return func.split_part(ModelCall.prompt_version, "@", 1, type_=ModelCall.prompt_version.type)
