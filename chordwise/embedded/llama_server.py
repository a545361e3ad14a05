"""Serves one GGUF file over HTTP on the loopback interface; a process of the embedded stack."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from chordwise.embedded import llama, processes
from chordwise.embedded.home import ServerAddress, password_in, write_private
from chordwise.errors import ConfigurationError


def main(description: str, port: str, key_file: str, address_file: str) -> None:
    """Load the model that a `LocalModel` in JSON describes, and serve it until a signal arrives."""
    model = llama.LocalModel.model_validate_json(description)
    processes.watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        llama.check_installed()
    except ConfigurationError as error:
        sys.exit(f"{error.what} {error.hint}")
    import xllamacpp  # noqa: PLC0415 - optional, and slow to load

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model.file)
    parameters.model_alias = {model.file.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    parameters.api_keys = [password_in(Path(key_file))]
    parameters.n_parallel = model.slots
    parameters.n_ctx = model.slots * model.context_tokens
    parameters.warmup = False
    parameters.cpuparams.n_threads = model.threads
    parameters.cpuparams_batch.n_threads = model.threads
    # DRY sampling keeps small models from repeating themselves up to the output limit; only the
    # last tokens of the answer count, because quotes repeat the text. Measured once with
    # SmolLM2-135M on four samples: three complete answers instead of none; on other texts it loops.
    parameters.sampling.dry_multiplier = 0.8
    parameters.sampling.dry_penalty_last_n = 256
    parameters.sampling.temp = 0.3
    server = xllamacpp.Server(parameters)
    address = ServerAddress(url=server.listening_address, server=processes.own_identity())
    write_private(Path(address_file), address.model_dump_json())
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
