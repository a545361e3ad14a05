"""An unusable address ends every process and every command at its start, with exit code 78."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.fakes.processes import Processes

SECRET = "s3cr3tP4ssword"  # noqa: S105 - planted, and searched for in the output
WRONG = f"amqp://user:{SECRET}@host//"
COMMANDS = (("analyze", "a.txt"), ("doctor",), ("up",))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_refuses_an_unsupported_broker_url(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "a.txt").write_text("The harbour was rebuilt in 1856.", "utf-8")
    environment = {
        "CHORDWISE_HOME": str(tmp_path / "home"),
        "CHORDWISE_DATABASE_URL": "postgresql://absent@127.0.0.1:9/nothing",
        "CHORDWISE_BROKER_URL": WRONG,
    }
    processes = Processes(folder=tmp_path, environment=environment)

    done = processes.call(*command)

    said = " ".join(f"{done.stdout} {done.stderr}".split())
    assert done.returncode == 78, said
    assert "broker_url: amqp:// is not supported; use redis://HOST:6379/0" in said
    assert "Traceback" not in said
    assert SECRET not in said
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "process", ["worker", pytest.param("scheduler", marks=pytest.mark.nightly)]
)
def test_a_database_number_out_of_range_of_the_broker_is_refused(
    tmp_path: Path, database_url: SecretStr, broker_url: SecretStr, process: str
) -> None:
    """Only the server knows how many databases it has; the default is 16."""
    environment = {
        "CHORDWISE_HOME": str(tmp_path / "home"),
        "CHORDWISE_DATABASE_URL": database_url.get_secret_value(),
        "CHORDWISE_BROKER_URL": f"{broker_url.get_secret_value()}?virtual_host=99",
    }
    processes = Processes(folder=tmp_path, environment=environment)

    ended = processes.start(process).wait(timeout=60)
    examined = processes.call("doctor")

    assert ended == 78, processes.logs()
    said = processes.logs()
    assert "rejects the number of the database in broker_url: DB index is out of range" in said
    assert "Traceback" not in said
    assert examined.returncode == 78, examined.stdout
    assert "rejects the number of the database" in " ".join(examined.stdout.split())
