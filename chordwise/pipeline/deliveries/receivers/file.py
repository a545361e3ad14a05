"""File: the account of a finished run and its answers, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat

from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.states import DeliveryEvent
from chordwise.settings.locations import require_writable
from chordwise.settings.receivers import Notice, Receiver

if TYPE_CHECKING:
    from chordwise.settings import Settings


class AnswerFolder(Receiver):
    """Writes the files once; a second attempt beside a slow one finds the files of that one."""

    events = (DeliveryEvent.RUN_FINISHED,)
    folder: Path = Field(description="For the answers, relative to chordwise.toml.")
    format: ExportFormat = ExportFormat.JSONL
    timeout_seconds: PositiveFloat = Field(default=120, description="Of one attempt.")

    def deliver(self, notice: Notice, settings: Settings) -> None:
        """Write the account and the answers."""
        # It imports SQLAlchemy, and each command reads the settings.
        from chordwise.pipeline.deliveries import answer_files  # noqa: PLC0415 - see above

        answer_files.write(self.folder_of(settings), self.format, notice, settings)

    def check(self, settings: Settings) -> str:
        """Require a folder in which this process can write."""
        from chordwise.pipeline.exports import writers  # noqa: PLC0415 - as above

        folder = self.folder_of(settings)
        require_writable(folder, "deliveries.file.folder")
        writers.require(self.format)
        return f"{self.format} files in {folder}"

    def folder_of(self, settings: Settings) -> Path:
        """Return the folder for the answers."""
        return settings.base_folder / self.folder.expanduser()


RECEIVER = AnswerFolder
