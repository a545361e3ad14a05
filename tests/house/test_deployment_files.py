"""docker-compose.yml and the Dockerfile run what the tests run, hardened and in the right order."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from chordwise.embedded.plan import Commands
from chordwise.settings import Settings
from tests.house.checkout import PACKAGES, ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
OURS = ("migrate", "worker", "scheduler", "chordwise")
SERVERS = ("postgres", "valkey")
LASTING = (*SERVERS, "worker", "scheduler")
OPTIONS_OF_PYTHON = 3  # python -P -m


class HealthCheck(BaseModel):
    """How a container is asked whether it is well."""

    test: list[str]
    start_period: str


class Dependency(BaseModel):
    """What another service must have reached before this one starts."""

    condition: str


class Service(BaseModel):
    """The entries of a service that the tests look at."""

    model_config = ConfigDict(extra="allow")

    image: str
    user: str
    command: list[str] = []
    environment: dict[str, str | None] = {}
    depends_on: dict[str, Dependency] = {}
    healthcheck: HealthCheck | None = None
    networks: list[str]
    read_only: bool
    init: bool
    cap_drop: list[str]
    security_opt: list[str]
    restart: str = ""
    stop_grace_period: str = "10s"
    ports: list[str] = []
    privileged: bool = False
    deploy: dict[str, object] = {}


class Compose(BaseModel):
    """The file."""

    services: dict[str, Service]
    networks: dict[str, dict[str, bool]]
    volumes: dict[str, dict[str, str]]
    configs: dict[str, dict[str, str]] = Field(default_factory=dict)


@pytest.fixture(scope="module")
def compose() -> Compose:
    """Return the file as YAML reads it, with its anchors filled in."""
    return Compose.model_validate(yaml.safe_load(COMPOSE))


def seconds(text: str) -> timedelta:
    """Return a duration that is written in seconds."""
    return timedelta(seconds=int(text.removesuffix("s")))


def test_the_services_are_those_of_the_picture(compose: Compose) -> None:
    """Two servers, one migration, two processes, and the command for people."""
    assert set(compose.services) == {*SERVERS, *OURS}


def test_the_commands_are_those_that_the_embedded_stack_runs(compose: Compose) -> None:
    """What the tests start is what production starts, but for the path of Python."""
    own = Commands()

    assert compose.services["worker"].command == ["python", "-m", *own.worker[OPTIONS_OF_PYTHON:]]
    assert compose.services["scheduler"].command == [
        "python",
        "-m",
        *own.scheduler[OPTIONS_OF_PYTHON:],
    ]
    assert compose.services["migrate"].command == [*own.migrate[OPTIONS_OF_PYTHON:]]


@pytest.mark.parametrize("name", [*SERVERS, *OURS])
def test_every_container_is_hardened(compose: Compose, name: str) -> None:
    """No root, no capability, nothing to write to but what is named, nothing published."""
    service = compose.services[name]

    assert service.user not in ("", "root", "0")
    assert service.read_only
    assert service.init
    assert service.cap_drop == ["ALL"]
    assert "no-new-privileges:true" in service.security_opt
    assert service.ports == []
    assert not service.privileged


@pytest.mark.parametrize("name", LASTING)
def test_every_lasting_service_is_watched_bounded_and_restarted(
    compose: Compose, name: str
) -> None:
    """Its health is asked after a period to start in, and its memory has an end."""
    service = compose.services[name]

    assert service.healthcheck is not None
    assert seconds(service.healthcheck.start_period) > timedelta(0)
    assert service.restart == "unless-stopped"
    assert "limits" in str(service.deploy)


@pytest.mark.parametrize("name", ["worker", "scheduler", "chordwise"])
def test_processes_start_on_a_migrated_database(compose: Compose, name: str) -> None:
    """The servers are well and the migration is done before anything of ours works."""
    conditions = {key: need.condition for key, need in compose.services[name].depends_on.items()}

    assert conditions == {
        "postgres": "service_healthy",
        "valkey": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_database_and_broker_are_reachable_by_chordwise_alone(compose: Compose) -> None:
    """They hang on a network without a way out."""
    assert compose.networks["inside"] == {"internal": True}
    assert all(compose.services[name].networks == ["inside"] for name in SERVERS)


def test_a_worker_may_finish_before_it_is_killed(compose: Compose) -> None:
    """The engine waits longer than the worker's own grace, with time to hand back the rest."""
    grace = timedelta(seconds=Settings().worker.shutdown_grace_seconds)

    assert seconds(compose.services["worker"].stop_grace_period) > grace + timedelta(seconds=10)


def test_secrets_are_asked_for_and_never_have_a_default(compose: Compose) -> None:
    """Nobody starts with a password that stands in a public file."""
    example = (ROOT / ".env.example").read_text("utf-8")
    required = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE))

    assert required == {"POSTGRES_PASSWORD", "CHORDWISE_DATABASE_PASSWORD", "VALKEY_PASSWORD"}
    assert all(re.search(rf"(?m)^{name}=$", example) for name in required)
    assert not re.search(r"\$\{\w*(PASSWORD|KEY)\w*(:?-|\})", COMPOSE)
    assert compose.services["worker"].environment["OPENAI_API_KEY"] is None


def test_every_file_that_compose_mounts_is_there(compose: Compose) -> None:
    """A misspelt path would become an empty folder on the host."""
    files = [config["file"] for config in compose.configs.values()]

    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_the_image_runs_as_nobody_in_particular(compose: Compose) -> None:
    """The user of the image is the one that Compose names, by number."""
    (user,) = re.findall(r"(?m)^USER (.+)$", DOCKERFILE)

    assert all(compose.services[name].user == user for name in OURS)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


def test_the_image_takes_its_libraries_from_the_lock_files() -> None:
    """Every installation in the image is either checked by hashes or the wheel built from here."""
    installs = re.findall(r"(?m)^.*\bpip .*?\binstall (.+?)(?: \\)?$", DOCKERFILE)

    assert len(installs) == DOCKERFILE.count("-m pip ")
    assert re.findall(r"(?m)^ARG (.+)$", DOCKERFILE) == ["LOCK=requirements.lock"]
    assert installs == [
        "--require-hashes -r ${LOCK}",
        "--require-hashes -r requirements-build.lock",
        "--no-deps dist/*.whl",
    ]


def test_the_image_is_built_from_files_that_reach_the_builder() -> None:
    """What the Dockerfile copies exists, and .dockerignore lets it through."""
    let_through = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = [
        name
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
        for name in line.split()[:-1]
    ]

    assert set(PACKAGES) < set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if f"!{name}" not in let_through] == []


def test_commands_of_the_image_get_signals_themselves() -> None:
    """In exec form, SIGTERM reaches the process and not a shell around it."""
    commands = re.findall(r"(?m)^(?:CMD|ENTRYPOINT) (.+)$", DOCKERFILE)

    assert commands
    assert all(command.startswith('["') for command in commands)
