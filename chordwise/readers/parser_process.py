"""Runs the parsers in a separate process, which is replaced if it hangs or crashes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from chordwise.domain.json_values import JsonObject
from chordwise.errors import InternalError, ReadError
from chordwise.readers import contents, failures, frames, limits
from chordwise.readers.capacity import FileLimits, ReadingTime
from chordwise.readers.contents import Content
from chordwise.readers.reader_output import WHOLE, Columns
from chordwise.settings import ReaderSettings

_CHILD = "chordwise.readers.parser_main"
_SOURCE = Path(__file__).parents[2]
# Limits leaks in C libraries; a start takes a quarter of a second.
_FILES_PER_PROCESS = 2_000
# 2,576 x 2,576 gray pixels always take less.
_MAX_PICTURE_BYTES = 8 * limits.MEGABYTE
_GOODBYE_SECONDS = 1.0
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRequest:
    """A request about a file; `ocr_data` is the folder of language data if it is a scan.

    With `shows_pages` the answers are the pages of a scan, those without text as pictures. `page`
    requests the picture of a page instead of texts; 0 means none. `is_text` is set if the file is a
    text that a model transcribed. `known` replaces what the answers say about a text.
    """

    name: str
    columns: Columns = WHOLE
    ocr_data: str = ""
    shows_pages: bool = False
    page: int = 0
    is_text: bool = False
    known: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserReply:
    """A header that describes a text, part, page or failure, with the text, picture or part."""

    header: JsonObject
    text: bytearray = field(default_factory=bytearray)
    places: bytes = b""
    part: Content | None = None


class ParserProcess:
    """A child process that parses one file after another, and is replaced after every failure."""

    def __init__(self, settings: ReaderSettings, bounds: FileLimits) -> None:
        self._settings = settings
        self._limits = bounds
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._files = 0
        self._time_setting = "timeout_seconds"

    def answers(
        self, file: BinaryIO, question: FileRequest, reading_time: ReadingTime
    ) -> Generator[ParserReply, None, None]:
        """Yield the answers of the child about an open file: texts, parts and failures.

        Each answer has the whole time limit, or that of a scan, within the time of the file. If the
        caller stops before the last answer, the child is ended.

        Raises:
            ReadError: The child did not answer in time, or ended while it read this file.
            ReadingInterruptedError: Another thread has ended it.
            InternalError: No child can be started.
        """
        channel, is_idle = self._running(), False
        self._time_setting = "ocr_timeout_seconds" if question.ocr_data else "timeout_seconds"
        try:
            reading_time.check()  # after the start of a child that can be killed
            with reading_time.counted():
                self._ask(channel, file, question, reading_time.deadline(self._seconds))
            while not is_idle:
                with reading_time.counted():
                    answer = self._answer(channel, question, reading_time)
                is_idle = bool(answer.header.get("last"))
                if answer.header.get("reason") == "memory":
                    # A library may still hold the memory.
                    self.stop()
                    is_idle = True
                if not answer.header.get("end"):
                    yield answer
        except TimeoutError as error:
            self.kill()
            self.stop()
            raise self._timed_out() from error
        except OSError as error:
            status = self.stop()
            reading_time.check()
            raise self._ended(status) from error
        finally:
            if not is_idle:
                self.stop()

    def stop(self) -> int | None:
        """End the child, if there is one, and return its exit status."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        try:
            # A dying or idle child ends when the channel closes; its status is the reason.
            return process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def kill(self) -> None:
        """Kill the child immediately; safe from other threads."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @property
    def _seconds(self) -> float:
        is_ocr = self._time_setting == "ocr_timeout_seconds"
        return self._settings.ocr_timeout_seconds if is_ocr else self._settings.timeout_seconds

    def _ask(
        self, channel: socket.socket, file: BinaryIO, question: FileRequest, deadline: float
    ) -> None:
        frames.send_file(channel, file.fileno(), deadline)
        frames.send(channel, self._request(question), b"", deadline)

    def _answer(
        self, channel: socket.socket, question: FileRequest, reading_time: ReadingTime
    ) -> ParserReply:
        """Return the next answer; a part is written to a file while it is received."""
        deadline = reading_time.deadline(self._seconds)
        texts_bytes = 0 if question.page else self._limits.max_text_bytes
        header, body = frames.receive(channel, max(_MAX_PICTURE_BYTES, texts_bytes), deadline)
        if not header.get("part"):
            size = header.get("text_bytes")
            end = size if isinstance(size, int) else len(body)
            places = bytes(body[end:])
            del body[end:]
            return ParserReply(header=header, text=body, places=places)
        last: JsonObject = {}
        content = contents.spooled(self._pieces(channel, last, deadline))
        if last.get("complete"):
            return ParserReply(header=header, part=content)
        content.close()
        return ParserReply(header=last)

    def _pieces(
        self, channel: socket.socket, last: JsonObject, deadline: float
    ) -> Iterator[bytearray]:
        bytes_left = self._limits.max_file_megabytes * limits.MEGABYTE
        while True:
            header, piece = frames.receive(channel, contents.SLICE_BYTES, deadline)
            if not header.get("piece"):
                last.update(header)
                return
            bytes_left -= len(piece)
            if bytes_left < 0:
                raise ConnectionError("a part is longer than allowed")
            yield piece

    def _request(self, question: FileRequest) -> JsonObject:
        settings, bounds = self._settings, self._limits
        return {
            "name": question.name,
            "max_characters": settings.max_characters,
            "max_text_bytes": bounds.max_text_bytes,
            "max_part_bytes": bounds.max_file_megabytes * limits.MEGABYTE,
            "timeout_seconds": self._seconds,
            "text_column": question.columns.text,
            "id_column": question.columns.identity,
            "ocr_data": question.ocr_data,
            "ocr_languages": settings.ocr_languages,
            "shown_pages": settings.max_vision_pages if question.shows_pages else 0,
            "edge_pixels": settings.max_vision_edge_pixels,
            "page": question.page,
            "is_text": question.is_text,
            "known": question.known,
            "leaves_out_unseen": settings.hidden_text == "leave_out",
        }

    def _running(self) -> socket.socket:
        if self._process is not None and (
            self._process.poll() is not None or self._files >= _FILES_PER_PROCESS
        ):
            self.stop()
        self._files += 1
        return self._channel or self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a module of Chordwise, no shell
                [sys.executable, "-P", "-m", _CHILD, str(self._limits.memory_megabytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        self._channel, self._files = ours, 1
        self._await_readiness(ours)
        return ours

    def _await_readiness(self, channel: socket.socket) -> None:
        """Wait for the child, to distinguish a broken installation from a broken file."""
        try:
            frames.receive(channel, 0, time.monotonic() + _START_SECONDS)
        except OSError as error:
            self.kill()
            status = self.stop()
            raise InternalError(
                f"The process that reads files did not start (status {status}).",
                f"Run {sys.executable} -m {_CHILD} 64 and read its error message.",
            ) from error

    def _timed_out(self) -> ReadError:
        return failures.unreadable(
            f"took longer than {self._seconds:g} s to read.",
            f"Split it, or raise readers.{self._time_setting}.",
            "timeout",
        )

    def _ended(self, status: int | None) -> ReadError:
        if status in (-signal.SIGALRM, -signal.SIGXCPU):
            return self._timed_out()
        if status == limits.OUT_OF_MEMORY_STATUS:
            return failures.out_of_memory()
        return failures.unreadable(
            "made its parser crash.",
            "The file is damaged or needs more than readers.memory_megabytes; "
            "open it in its own program, save it again, and submit the new copy.",
            "parser_crashed",
        )


def _environment() -> dict[str, str]:
    """Return the minimal environment for Python; the child must not see the keys of providers."""
    paths = [str(_SOURCE), *(path for path in sys.path if Path(path).is_absolute())]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUTF8": "1",
        # The threads of Tesseract slow each other down.
        "OMP_THREAD_LIMIT": "1",
    }
