"""Serves one GGUF file over HTTP on the loopback interface; a process of the embedded stack."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Protocol

from chordwise.embedded import llama, processes
from chordwise.embedded.home import ServerAddress, password_in, write_private
from chordwise.errors import ConfigurationError


class Sampling(Protocol):
    """The sampling parameters that are set here; the values of a request take precedence."""

    dry_multiplier: float
    dry_penalty_last_n: int
    temp: float


def main(arguments: list[str]) -> None:
    """Load the model, write its address, and serve it until a signal comes."""
    options = _parser().parse_args(arguments)
    processes.watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        llama.check_installed()
    except ConfigurationError as error:
        sys.exit(f"{error.what} {error.hint}")
    import xllamacpp  # noqa: PLC0415 - optional, and slow to load

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(options.model)
    parameters.model_alias = {options.model.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.api_keys = [password_in(options.key_file)]
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.slots * options.context
    parameters.warmup = False
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    _steady(parameters.sampling)
    server = xllamacpp.Server(parameters)
    address = ServerAddress(url=server.listening_address, server=processes.own_identity())
    write_private(options.address_file, address.model_dump_json())
    threading.Event().wait()


def _steady(sampling: Sampling) -> None:
    """Keep small models from repeating themselves until the output limit (DRY sampling).

    Only the last tokens of the answer are considered, because quotes repeat the text. Measured once
    with SmolLM2-135M on four samples: three complete answers instead of none; on other texts it
    still loops.
    """
    sampling.dry_multiplier = 0.8
    sampling.dry_penalty_last_n = 256
    sampling.temp = 0.3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chordwise.embedded.llama_server")
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--context", type=int, default=8_192)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--address-file", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
