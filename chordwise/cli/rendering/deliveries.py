"""Who was told that a run ended, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from chordwise.cli.rendering.plain_text import one_line
from chordwise.cli.rendering.words import counted, moment
from chordwise.storage.deliveries import DeliveryLine, DeliveryStatus


def laid_out(found: Sequence[DeliveryLine]) -> Iterator[Text]:
    """Return a line for each delivery."""
    for line in found:
        style = "red" if line.status == DeliveryStatus.FAILED else ""
        yield Text(f"Delivery {' · '.join(_parts(line))}", style=style)


def _parts(line: DeliveryLine) -> Iterator[str]:
    yield f"{line.kind} of {line.event}"
    yield line.status
    yield counted(line.attempts, "attempt")
    if line.status == DeliveryStatus.PENDING:
        yield f"next {moment(line.due_at)}"
    if line.last_error:
        yield one_line(line.last_error)
