"""Tests of docker-compose.yml and the Dockerfile: commands, order of starts, and hardening."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from chordwise import settings as settings_module
from chordwise.embedded.stack_plan import Commands
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.readers import limits
from chordwise.settings import ReaderSettings, Settings
from tests.house.checkout import PACKAGES, ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PINNING = ROOT / "deploy" / "pin-images.sh"
IMAGES = {"POSTGRES_IMAGE", "VALKEY_IMAGE", "PYTHON_IMAGE"}
ASKING = r":\?run sh deploy/pin-images\.sh >>\.env\}"
OURS = ("migrate", "worker", "scheduler", "web", "chordwise")
SERVERS = ("postgres", "valkey")
LASTING = (*SERVERS, "worker", "scheduler", "web")
READING = ("scheduler", "web", "chordwise")
HOME = PurePosixPath("/var/lib/chordwise")
SCRATCH = PurePosixPath("/var/tmp")  # noqa: S108 - a volume in the container
FOLDERS = PurePosixPath("/folders")
SETTINGS = PurePosixPath("/etc/chordwise")
OPTIONS_OF_PYTHON = 3  # python -P -m


class HealthCheck(BaseModel):
    """The health check of a container."""

    test: list[str]
    start_period: str


class Dependency(BaseModel):
    """The condition under which a dependent service starts."""

    condition: str


class Mount(BaseModel):
    """A mount of a container."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["bind", "volume"]
    source: str
    target: PurePosixPath
    read_only: bool = False


class Service(BaseModel):
    """The entries of a service that the tests check."""

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
    volumes: list[Mount | str] = []
    secrets: list[str] = []
    tmpfs: list[str] = []
    privileged: bool = False
    deploy: dict[str, object] = {}

    def mounted(self, *, writable: bool) -> dict[PurePosixPath, str]:
        """Return the sources of the mounts by target, either writable or read-only ones."""
        mounts = [volume for volume in self.volumes if isinstance(volume, Mount)]
        return {mount.target: mount.source for mount in mounts if mount.read_only is not writable}


class Compose(BaseModel):
    """The contents of docker-compose.yml."""

    services: dict[str, Service]
    networks: dict[str, dict[str, bool]]
    volumes: dict[str, dict[str, str]]
    configs: dict[str, dict[str, str]] = Field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = Field(default_factory=dict)


@pytest.fixture(scope="module")
def compose() -> Compose:
    """Return the parsed file, with its YAML anchors resolved."""
    return Compose.model_validate(yaml.safe_load(COMPOSE))


def seconds(text: str) -> timedelta:
    return timedelta(seconds=int(text.removesuffix("s")))


def test_the_commands_are_those_of_the_embedded_stack(compose: Compose) -> None:
    """Tests and production start the same commands, except for the path of Python."""
    commands = Commands()
    started = {name: service.command for name, service in compose.services.items()}

    assert set(started) == {*SERVERS, *OURS}
    for name, command in (("worker", commands.worker), ("scheduler", commands.scheduler)):
        assert started[name] == ["python", "-m", *command[OPTIONS_OF_PYTHON:]]
    for name, command in (("migrate", commands.migrate), ("web", commands.web)):
        assert started[name] == [*command[OPTIONS_OF_PYTHON:]]


@pytest.mark.parametrize("name", [*SERVERS, *OURS])
def test_every_container_is_hardened(compose: Compose, name: str) -> None:
    """It has no root, no capabilities, a read-only root file system, and few processes.

    Only the port of the pages is published, on the host's loopback address.
    """
    service = compose.services[name]
    processes = service.deploy["resources"]["limits"]["pids"]  # type: ignore[index]  # YAML

    assert service.user not in ("", "root", "0")
    assert (service.read_only, service.init, service.privileged) == (True, True, False)
    assert service.cap_drop == ["ALL"]
    assert "no-new-privileges:true" in service.security_opt
    assert service.ports == (["127.0.0.1:8484:8484"] if name == "web" else [])
    assert 0 < processes <= 512


@pytest.mark.parametrize("name", LASTING)
def test_every_service_is_health_checked_limited_and_restarted(compose: Compose, name: str) -> None:
    """It has a health check with a start period, and a memory limit."""
    service = compose.services[name]

    assert service.healthcheck is not None
    assert seconds(service.healthcheck.start_period) > timedelta(0)
    assert service.restart == "unless-stopped"
    assert "limits" in str(service.deploy)


@pytest.mark.parametrize("name", ["worker", "scheduler", "web", "chordwise"])
def test_processes_start_on_a_migrated_database(compose: Compose, name: str) -> None:
    conditions = {key: need.condition for key, need in compose.services[name].depends_on.items()}

    assert conditions == {
        "postgres": "service_healthy",
        "valkey": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_only_services_that_call_providers_or_webhooks_have_internet_access(
    compose: Compose,
) -> None:
    """Workers and `quote --sample` call models; schedulers submit batches and call webhooks."""
    networks = {name: service.networks for name, service in compose.services.items()}

    assert compose.networks["inside"] == {"internal": True}
    assert [networks[name] for name in SERVERS] == [["inside"]] * 2
    for name in ("worker", "scheduler", "chordwise"):
        assert networks[name] == ["inside", "outside"]


def test_a_worker_may_finish_before_it_is_killed(compose: Compose) -> None:
    """The stop grace period exceeds the worker's own, with time to return the remaining work."""
    grace = timedelta(seconds=Settings().worker.shutdown_grace_seconds)

    assert seconds(compose.services["worker"].stop_grace_period) > grace + timedelta(seconds=10)


def test_secrets_are_files_and_never_have_a_default(compose: Compose, tmp_path: Path) -> None:
    """No password is in a public file or an environment; services start with generated ones."""
    made = tmp_path / "secrets"
    command = ["sh", str(ROOT / "deploy" / "make-secrets.sh"), str(made)]
    subprocess.run(command, check=True)
    written = {file.name: file.read_text("utf-8") for file in made.iterdir()}
    again = subprocess.run(command, capture_output=True, check=False)
    used = [name for service in compose.services.values() for name in service.secrets]

    assert again.returncode != 0
    assert {file.name: file.read_text("utf-8") for file in made.iterdir()} == written
    assert made.stat().st_mode & 0o777 == 0o700
    assert set(used) == set(compose.secrets) == set(written)
    assert all(
        secret["file"] == f"${{CHORDWISE_SECRETS:-./secrets}}/{name}"
        for name, secret in compose.secrets.items()
    )
    passwords = {name: password for name, password in written.items() if name.endswith("_password")}
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords.values())
    assert len(set(passwords.values())) == len(passwords)
    assert passwords["database_password"] in written["chordwise_database_url"]
    assert passwords["valkey_password"] in written["chordwise_broker_url"]
    assert not re.search(r"\$\{\w*(PASSWORD|API_KEY)", COMPOSE)
    assert compose.services["worker"].environment["OPENAI_API_KEY"] is None


def test_compose_accepts_the_file(tmp_path: Path) -> None:
    """Compose validates it as before a start; skipped where Compose is not installed."""
    commands = (["docker-compose"], ["docker", "compose"])
    command = next((command for command in commands if shutil.which(command[0])), None)
    if command is None:
        pytest.skip("Compose is not installed")
    subprocess.run(["sh", str(ROOT / "deploy" / "make-secrets.sh"), f"{tmp_path}/s"], check=True)  # noqa: S607 - as above
    file = str(ROOT / "docker-compose.yml")
    done = subprocess.run(
        [*command, "--file", file, "--profile", "web", "config", "--quiet"],
        env={
            "PATH": os.defpath,
            "CHORDWISE_SECRETS": f"{tmp_path}/s",
            **dict.fromkeys(IMAGES, f"image@sha256:{0:064}"),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", OURS)
def test_every_service_reads_the_same_settings_read_only(compose: Compose, name: str) -> None:
    service = compose.services[name]

    source = service.mounted(writable=False)[SETTINGS]
    (folder,) = re.findall(r"^\$\{CHORDWISE_SETTINGS:-(.+)\}$", source)
    config = SETTINGS / "chordwise.toml"
    assert service.environment["CHORDWISE_CONFIG"] == str(config)
    mounted = [config["file"] for config in compose.configs.values()]
    assert mounted
    assert all((ROOT / file).is_file() for file in (f"{folder}/{config.name}", *mounted))


def test_only_services_that_take_in_files_mount_the_folders(compose: Compose) -> None:
    """Workers read the database only."""
    sees = {name: compose.services[name].mounted(writable=True) for name in OURS}

    assert {name for name, mounts in sees.items() if FOLDERS in mounts} == {
        "scheduler",
        "chordwise",
    }
    assert set(sees.pop("web")) == {HOME / "web", SCRATCH}
    assert sees["chordwise"] == sees["scheduler"]
    assert set(sees["chordwise"]) == {FOLDERS, SCRATCH}
    assert sees["worker"] == sees["migrate"] == {}


@pytest.mark.parametrize("name", READING)
def test_the_limits_on_files_fit_into_the_memory_of_the_service(
    compose: Compose, name: str
) -> None:
    """Memory suffices for all files that are read at once; the limits are not too small.

    Temporary files go to a disk, because a tmpfs counts as memory of its container.
    """
    service = compose.services[name]
    memory = str(service.deploy["resources"]["limits"]["memory"])  # type: ignore[index]  # YAML
    megabytes = int(memory.removesuffix("m"))
    place = PurePosixPath(service.environment["TMPDIR"] or "")

    measured = limits.file_limits(ReaderSettings(), megabytes)

    assert limits.RESERVED_MEGABYTES + limits.READERS * measured.memory_megabytes <= megabytes
    assert 250 <= measured.max_file_megabytes <= measured.memory_megabytes
    assert measured.max_text_bytes >= 40_000_000
    assert service.mounted(writable=True)[place] in compose.volumes
    assert str(place) not in service.tmpfs


def test_the_home_is_temporary_and_private(compose: Compose) -> None:
    home = next(mount for mount in compose.services["scheduler"].tmpfs if str(HOME) in mount)

    assert "uid=10001,gid=10001,mode=0700" in home
    # An empty volume gets the owner of the folder in the image.
    assert re.search(rf"--mode=0700 \\\n\s+{HOME} {HOME}/web\n", DOCKERFILE)


def test_the_settings_of_the_containers_suit_their_mounts_and_memory(tmp_path: Path) -> None:
    """An inbox and its sibling folders are in one mount, because files are renamed between them.

    Limits on files are left to the default, which depends on memory. Commented entries are valid.
    """
    file = ROOT / "deploy" / "settings" / "chordwise.toml"
    text = file.read_text("utf-8")
    loaded = settings_module.load(file)
    (inbox,) = inboxes_of(loaded).inboxes
    folders = re.findall(r'(?m)^# (?:folder = "|run = ".*--output )(/folders/\w+)', text)
    (tmp_path / "chordwise.toml").write_text(re.sub(r"(?m)^# (?=\[|\w+ = )", "", text), "utf-8")

    uncommented = settings_module.load(tmp_path / "chordwise.toml")

    assert len(folders) == 2
    for folder in (inbox.folder, inbox.done, inbox.failed, *map(Path, folders)):
        assert folder.parent == Path(FOLDERS)
    assert (loaded.readers.memory_megabytes, loaded.readers.max_file_megabytes) == (None, None)
    assert uncommented.inbox.polling
    assert (set(uncommented.profiles), set(uncommented.schedules)) == ({"contracts"}, {"answers"})


def test_the_image_runs_as_an_unprivileged_user(compose: Compose) -> None:
    """Its numeric user is the one in docker-compose.yml; SIGTERM reaches it without a shell."""
    (user,) = re.findall(r"(?m)^USER (.+)$", DOCKERFILE)
    commands = re.findall(r"(?m)^(?:CMD|ENTRYPOINT) (.+)$", DOCKERFILE)

    assert all(compose.services[name].user == user for name in OURS)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert commands
    assert all(command.startswith('["') for command in commands)


def test_the_image_installs_from_the_lock_files() -> None:
    """Every installation is checked by hashes or installs the wheel built from this checkout."""
    installs = re.findall(r"(?m)^.*\bpip .*?\binstall (.+?)(?: \\)?$", DOCKERFILE)

    assert len(installs) == DOCKERFILE.count("-m pip ")
    assert re.findall(r"(?m)^ARG (.+)$", DOCKERFILE) == [
        "PYTHON_IMAGE=python:3.13-slim",
        "LOCK=requirements.lock",
    ]
    assert installs == [
        "--require-hashes -r ${LOCK}",
        "--require-hashes -r requirements-build.lock",
        "--no-deps dist/*.whl",
    ]


def test_compose_requires_images_from_the_environment(compose: Compose) -> None:
    """This includes the base image of the Dockerfile; the script pins the same images."""
    images = [
        re.fullmatch(rf"\$\{{(\w+){ASKING}", compose.services[name].image) for name in SERVERS
    ]
    pinned = dict(re.findall(r"(?m)^pin (\w+) (\S+)$", PINNING.read_text("utf-8")))

    assert [image[1] for image in images if image] == ["POSTGRES_IMAGE", "VALKEY_IMAGE"]
    assert len(re.findall(rf"(?m)PYTHON_IMAGE: \$\{{PYTHON_IMAGE{ASKING}$", COMPOSE)) == 1
    assert re.findall(r"(?m)^FROM (\S+)", DOCKERFILE) == ["${PYTHON_IMAGE}"] * 2
    assert set(pinned) == IMAGES
    assert f"ARG PYTHON_IMAGE={pinned['PYTHON_IMAGE']}\n" in DOCKERFILE
    for file in ("docs/deployment.md", ".env.example"):
        assert set(re.findall(r"\b[A-Z]+_IMAGE\b", (ROOT / file).read_text("utf-8"))) == IMAGES


# Prints what Docker prints of an image that has been pulled under several names.
DOCKER = """#!/bin/sh
test "$1" = pull && exit
for image; do :; done
echo "mirror.example/$image@sha256:$(printf %064d 0)"
echo "{prefix}${{image%%:*}}@sha256:$(printf %064d 7)"
"""


@pytest.mark.parametrize(
    ("prefix", "is_found"),
    [("", True), ("docker.io/", True), ("docker.io/library/", True), ("elsewhere.example/", False)],
)
def test_images_are_pinned_by_their_digest(tmp_path: Path, prefix: str, is_found: bool) -> None:  # noqa: FBT001 - a parameter
    """Digests of other repositories are not taken; without a digest the script fails."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(prefix=prefix), "utf-8")
    docker.chmod(0o700)

    done = subprocess.run(
        ["sh", str(PINNING)],  # noqa: S607 - the shell from the PATH
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=False,
    )

    digest = f"@sha256:{7:064}"
    assert done.returncode == (0 if is_found else 1)
    assert (
        done.stdout.splitlines()
        == [
            f"POSTGRES_IMAGE={prefix}postgres{digest}",
            f"VALKEY_IMAGE={prefix}valkey/valkey{digest}",
            f"PYTHON_IMAGE={prefix}python{digest}",
        ]
        * is_found
    )
    assert ("postgres:18 has no digest" in done.stderr) is not is_found


def test_the_files_of_the_image_are_in_the_build_context() -> None:
    """Files that the Dockerfile copies exist, and .dockerignore does not exclude them."""
    let_through = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = [
        name
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
        for name in line.split()[:-1]
    ]

    assert set(PACKAGES) < set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if f"!{name}" not in let_through] == []
