"""A real LiteLLM proxy on loopback, in a separate process, in front of a test's provider."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.processes import wait_until
from tests.peers.faulty_server import FaultyServer, answer, faulty_server, hang_up
from tests.peers.serving import free_port

KEY = "sk-of-the-proxy"
PROVIDER_KEY = "sk-of-the-provider"
MODEL = "our-model"
SHORT_MODEL = "our-model-with-a-short-timeout"
SHORT_TIMEOUT_SECONDS = 1
INPUT_USD = "0.000003"
OUTPUT_USD = "0.000015"
START_SECONDS = 500.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteLLMProxy:
    """The proxy's address, its provider, and a server for all other outgoing connections."""

    base_url: str
    provider: FaultyServer
    outside: FaultyServer


@contextmanager
def litellm_proxy(program: Path, folder: Path) -> Iterator[LiteLLMProxy]:
    """Run `program`, LiteLLM's command, with its configuration and log in `folder`."""
    with faulty_server() as provider, faulty_server() as outside:
        outside.greeting = hang_up
        provider.play(answer({}, 404))  # LiteLLM sends a request at its start
        port = free_port()
        configuration = folder / "litellm.yaml"
        configuration.write_text(json.dumps(_configuration(provider.base_url)), "utf-8")
        command = [str(program), f"--config={configuration}", "--host=127.0.0.1", f"--port={port}"]
        log = folder / "litellm.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=_environment(folder, outside),
            )
        try:
            wait_until(
                lambda: process.poll() is not None or _is_alive(port), START_SECONDS, "LiteLLM runs"
            )
            if process.poll() is not None:
                pytest.fail(f"LiteLLM did not start: {log.read_text('utf-8')[-2_000:]}")
            yield LiteLLMProxy(
                base_url=f"http://127.0.0.1:{port}/v1", provider=provider, outside=outside
            )
        finally:
            _stop(process)


def _configuration(provider_url: str) -> dict[str, object]:
    behind = {
        "model": "openai/behind",
        "api_base": provider_url,
        "api_key": PROVIDER_KEY,
        "input_cost_per_token": float(INPUT_USD),
        "output_cost_per_token": float(OUTPUT_USD),
    }
    return {
        "model_list": [
            {"model_name": MODEL, "litellm_params": behind},
            {
                "model_name": SHORT_MODEL,
                "litellm_params": {**behind, "timeout": SHORT_TIMEOUT_SECONDS},
            },
        ],
        # As documented in docs/models.md: Chordwise does the retries and pauses.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY, "forward_client_headers_to_llm_api": True},
    }


def _environment(folder: Path, outside: FaultyServer) -> dict[str, str]:
    way_out = outside.base_url.removesuffix("/v1")
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "HTTP_PROXY": way_out,
        "HTTPS_PROXY": way_out,
        "NO_PROXY": "127.0.0.1",
        # Otherwise LiteLLM downloads its table of prices.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _is_alive(port: int) -> bool:
    try:
        reply = httpx.get(f"http://127.0.0.1:{port}/health/liveliness", trust_env=False, timeout=5)
    except httpx.HTTPError:
        return False
    return reply.is_success


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
