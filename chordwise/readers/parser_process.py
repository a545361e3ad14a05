"""Runs the parsers in a process of their own, which may hang or crash and is then replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from chordwise.domain.json_values import JsonObject
from chordwise.errors import InternalError, ReadError
from chordwise.readers import failures, frames, limits
from chordwise.readers.extracted import WHOLE, Columns
from chordwise.settings import ReaderSettings

_CHILD = "chordwise.readers.child"
_SOURCE = Path(__file__).parents[2]
_BYTES_PER_CHARACTER = 4
_MEGABYTE = 1024 * 1024
# Against leaks in C libraries; a start costs a quarter of a second.
_FILES_PER_PROCESS = 500
_GOODBYE_SECONDS = 1.0
_START_SECONDS = 60.0
_TIME_SIGNALS = (-signal.SIGALRM, -signal.SIGXCPU)


class ParserProcess:
    """One child that parses file after file; started when needed, replaced after every failure."""

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._files = 0
        self._time_setting = "timeout_seconds"

    def answers(
        self, data: bytes, name: str, columns: Columns = WHOLE, ocr_data: str = ""
    ) -> Iterator[tuple[JsonObject, bytes]]:
        """Yield the child's answers: a header that describes text, part or failure, and the bytes.

        Each has the whole time limit; with `ocr_data` (for a scan) that for scans. Who stops
        asking before the last answer costs the child.

        Raises:
            ReadError: The child did not answer in time, or ended over this file.
            InternalError: No child can be started.
        """
        channel = self._running()
        is_idle = False
        self._time_setting = "ocr_timeout_seconds" if ocr_data else "timeout_seconds"
        request = self._request(name, columns, ocr_data)
        seconds = self._seconds
        try:
            frames.send(channel, request, data, time.monotonic() + seconds)
            while not is_idle:
                deadline = time.monotonic() + seconds
                header, body = frames.receive(channel, self._longest_answer, deadline)
                is_idle = bool(header.get("last"))
                if header.get("reason") == "memory":
                    # What filled the memory may still be held by a library.
                    self.stop()
                    is_idle = True
                if not header.get("end"):
                    yield header, body
        except TimeoutError as error:
            self._kill()
            self.stop()
            raise self._timed_out() from error
        except OSError as error:
            raise self._ended(self.stop()) from error
        finally:
            if not is_idle:
                self.stop()

    def stop(self) -> int | None:
        """End the child, if there is one, and return how it ended."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        try:
            # Dying or idle, it ends as the channel closes, and its status says why.
            return process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    @property
    def process_id(self) -> int | None:
        """The child's process id, while it lives."""
        return self._process.pid if self._process is not None else None

    @property
    def _seconds(self) -> float:
        is_ocr = self._time_setting == "ocr_timeout_seconds"
        return self._settings.ocr_timeout_seconds if is_ocr else self._settings.timeout_seconds

    @property
    def _longest_answer(self) -> int:
        text_bytes = self._settings.max_characters * _BYTES_PER_CHARACTER
        return max(text_bytes, self._settings.max_file_megabytes * _MEGABYTE)

    def _request(self, name: str, columns: Columns, ocr_data: str) -> JsonObject:
        settings = self._settings
        return {
            "name": name,
            "max_characters": settings.max_characters,
            "max_part_bytes": settings.max_file_megabytes * _MEGABYTE,
            "timeout_seconds": self._seconds,
            "text_column": columns.text,
            "id_column": columns.identity,
            "ocr_data": ocr_data,
            "ocr_languages": settings.ocr_languages,
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
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-P", "-m", _CHILD, str(self._settings.memory_megabytes)],
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
        """Tell a broken installation from a broken file before any file is blamed."""
        try:
            frames.receive(channel, 0, time.monotonic() + _START_SECONDS)
        except OSError as error:
            self._kill()
            status = self.stop()
            raise InternalError(
                f"The process that reads files does not start (status {status}).",
                f"See what {sys.executable} -m {_CHILD} 64 says.",
            ) from error

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _timed_out(self) -> ReadError:
        return failures.unreadable(
            f"took longer than {self._seconds:g} s to read.",
            f"Split it, or raise readers.{self._time_setting}.",
            "timeout",
        )

    def _ended(self, status: int | None) -> ReadError:
        if status in _TIME_SIGNALS:
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
    """Return the little that Python needs; keys of providers are none of the child's business."""
    paths = [str(_SOURCE), *(path for path in sys.path if Path(path).is_absolute())]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONUTF8": "1",
        # Tesseract's threads slow each other down.
        "OMP_THREAD_LIMIT": "1",
    }
