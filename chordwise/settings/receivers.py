"""Receivers of deliveries: each kind is a table `[deliveries.KIND]`."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
)

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import DeliveryEvent
from chordwise.kinds import Kinds
from chordwise.settings.sections import Section, problems

if TYPE_CHECKING:
    from chordwise.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a receiver is told about an event; only `attempted_at` differs between attempts."""

    id: str
    event: str
    created_at: datetime
    attempted_at: datetime
    run_id: uuid.UUID | None
    content: JsonObject


class Receiver(Section):
    """A table `[deliveries.KIND]`; the settings of the scheduler apply.

    `timeout_seconds` is the longest that an attempt takes.
    """

    events: ClassVar[Collection[str]] = tuple(DeliveryEvent)
    """The events that are delivered."""

    timeout_seconds: PositiveFloat = Field(default=15, description="Of one attempt.")
    max_attempts: PositiveInt = 12
    first_wait_seconds: PositiveFloat = Field(
        default=10, description="After a failure; each further wait doubles."
    )
    max_wait_seconds: PositiveFloat = 3600

    @abstractmethod
    def deliver(self, notice: Notice, settings: Settings) -> None:
        """Deliver a notice, which an earlier attempt may have delivered.

        Raises:
            DeliveryRefusedError: The receiver rejected it permanently.
            ChordwiseError: It was not delivered; another attempt may succeed.
        """

    @abstractmethod
    def check(self, settings: Settings) -> str:
        """Return a finding for `chordwise doctor`, without a delivery.

        Raises:
            ConfigurationError: Deliveries would fail.
        """


RECEIVERS: Kinds[type[Receiver]] = Kinds("chordwise.pipeline.deliveries.receivers", "RECEIVER")


def _read(tables: object) -> object:
    if not isinstance(tables, Mapping):
        return tables
    receivers = {}
    for kind, table in tables.items():
        try:
            receivers[kind] = RECEIVERS[kind].model_validate(table)
        except KeyError:
            raise ValueError(f"unknown table {kind}; known: {', '.join(RECEIVERS)}") from None
        except ValidationError as error:
            raise ValueError("; ".join(f"{kind}.{text}" for text in problems(error))) from None
    return receivers


Receivers: TypeAlias = Annotated[Mapping[str, SerializeAsAny[Receiver]], BeforeValidator(_read)]
