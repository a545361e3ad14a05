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
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import BinaryIO

from chordwise.errors import InternalError, ReadError
from chordwise.readers import failures, limits, protocol
from chordwise.readers.protocol import Reply
from chordwise.readers.reader_output import ReadOptions

_CHILD = "chordwise.readers.parser_main"
_SOURCE = Path(__file__).parents[2]
# Limits leaks in C libraries; a start takes a quarter of a second.
_FILES_PER_PROCESS = 2_000
_GOODBYE_SECONDS = 1.0
_START_SECONDS = 60.0


class ReadingInterruptedError(Exception):
    """Another thread interrupted the reading of a file; the file itself is not at fault."""


class ReadingTime:
    """Counts the seconds of waiting for parsers, without those of storing texts."""

    def __init__(self, seconds: float, interruption: Event) -> None:
        self.total = seconds
        self._left = seconds
        self._interruption = interruption

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._left <= 0

    def deadline(self, seconds: float) -> float:
        """Return when `seconds`, or the remaining time if shorter, end on the monotonic clock."""
        return time.monotonic() + min(seconds, self._left)

    def check(self) -> None:
        """Check whether reading may continue.

        Raises:
            ReadingInterruptedError: Reading was interrupted.
        """
        if self._interruption.is_set():
            raise ReadingInterruptedError

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time spent in the block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun


class ParserProcess:
    """A child process that parses one file after another, and is replaced after every failure."""

    def __init__(self, memory_megabytes: int) -> None:
        self._memory_megabytes = memory_megabytes
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._files = 0

    def replies(
        self, file: BinaryIO, options: ReadOptions, reading_time: ReadingTime
    ) -> Generator[Reply, None, None]:
        """Yield the replies of the child about an open file: texts, parts and failures.

        Each reply has the whole time limit, within the time of the file. If the caller stops before
        the last reply, the child is ended.

        Raises:
            ReadError: The child did not answer in time, or ended while it read this file.
            ReadingInterruptedError: Another thread has ended it.
            InternalError: No child can be started.
        """
        channel, is_idle = self._running(), False
        seconds = options.timeout_seconds
        try:
            reading_time.check()  # after the start of a child that can be killed
            with reading_time.counted():
                protocol.send_request(channel, file, options, reading_time.deadline(seconds))
            while not is_idle:
                with reading_time.counted():
                    deadline = reading_time.deadline(seconds)
                    reply = protocol.receive_reply(channel, options, deadline)
                is_idle = bool(reply.header.get("last"))
                if reply.header.get("reason") == "memory":
                    # A library may still hold the memory.
                    self.stop()
                    is_idle = True
                if not reply.header.get("end"):
                    yield reply
        except TimeoutError as error:
            self.kill()
            self.stop()
            raise _timed_out(options) from error
        except OSError as error:
            status = self.stop()
            reading_time.check()
            raise _ended(status, options) from error
        finally:
            if not is_idle:
                self.stop()

    def reply(self, file: BinaryIO, options: ReadOptions, reading_time: ReadingTime) -> Reply:
        """Return the only reply of the child about an open file; see `replies`."""
        return next(self.replies(file, options, reading_time), Reply(header={}))

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

    def _running(self) -> socket.socket:
        if self._process is not None and (
            self._process.poll() is not None or self._files >= _FILES_PER_PROCESS
        ):
            self.stop()
        self._files += 1
        return self._channel or self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        paths = [str(_SOURCE), *(path for path in sys.path if Path(path).is_absolute())]
        # Minimal: the child must not see the keys of providers.
        environment = {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PYTHONUTF8": "1",
            # The threads of Tesseract slow each other down.
            "OMP_THREAD_LIMIT": "1",
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a module of Chordwise, no shell
                [sys.executable, "-P", "-m", _CHILD, str(self._memory_megabytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        self._channel, self._files = ours, 1
        try:
            # Its first answer distinguishes a broken installation from a broken file.
            protocol.receive(ours, 0, time.monotonic() + _START_SECONDS)
        except OSError as error:
            self.kill()
            status = self.stop()
            raise InternalError(
                f"The process that reads files did not start (status {status}).",
                f"Run {sys.executable} -m {_CHILD} 64 and read its error message.",
            ) from error
        return ours


def _timed_out(options: ReadOptions) -> ReadError:
    setting = "ocr_timeout_seconds" if options.ocr_data else "timeout_seconds"
    return failures.unreadable(
        f"took longer than {options.timeout_seconds:g} s to read.",
        f"Split it, or raise readers.{setting}.",
        "timeout",
    )


def _ended(status: int | None, options: ReadOptions) -> ReadError:
    if status in (-signal.SIGALRM, -signal.SIGXCPU):
        return _timed_out(options)
    if status == limits.OUT_OF_MEMORY_STATUS:
        return failures.out_of_memory()
    return failures.unreadable(
        "made its parser crash.",
        "The file is damaged or needs more than readers.memory_megabytes; "
        "open it in its own program, save it again, and submit the new copy.",
        "parser_crashed",
    )
