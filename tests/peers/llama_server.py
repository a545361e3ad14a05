"""A real llama.cpp server on loopback, in a separate process.

`llama_server` starts it from a test; run as a script, this file is the process.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

START_SECONDS = 30.0
STOP_SECONDS = 15.0
SLOTS = 2
CONTEXT_TOKENS_PER_SLOT = 4_096


@contextmanager
def llama_server(model: Path) -> Iterator[str]:
    """Serve the GGUF file `model`; yield the `base_url` for Chat Completions."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        try:
            yield f"{_first_address(output, process)}/v1"
        finally:
            _stop(process)


def _first_address(output: IO[str], process: subprocess.Popen[str]) -> str:
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        for line in output:
            if line.startswith("http"):
                return line.strip()
    finally:
        timer.cancel()
    raise AssertionError("llama.cpp did not start")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve(model: str) -> None:
    import xllamacpp  # noqa: PLC0415 - only in the process that serves

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
