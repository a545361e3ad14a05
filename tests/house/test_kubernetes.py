"""Tests of the manifests for Kubernetes, as Kustomize renders them: schemas, hardening, probes."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import PurePosixPath

import kubernetes_validate
import pytest
import yaml

from chordwise import settings as settings_module
from chordwise.settings import Settings
from tests.house.checkout import ROOT
from tests.house.test_deployment_files import COMPOSE, Compose

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
PROCESSES = ("worker", "reader", "scheduler", "web")
SCALED = ("worker", "reader")

pytestmark = pytest.mark.skipif(not shutil.which("kustomize"), reason="Kustomize is not installed")


class Manifest(dict[str, object]):
    """A manifest, or a part of it."""

    def at(self, *path: str | int) -> object:
        """Return the value at a path."""
        value: object = self
        for step in path:
            value = value[step]  # type: ignore[index]  # YAML
        return value

    def part(self, *path: str | int) -> Manifest:
        value = self.at(*path)
        assert isinstance(value, dict)
        return Manifest(value)

    def parts(self, *path: str | int) -> list[Manifest]:
        values = self.at(*path)
        assert isinstance(values, list)
        return [Manifest(value) for value in values]


@cache
def rendered(folder: str = "production") -> dict[tuple[str, str], Manifest]:
    """Return the manifests by kind and name."""
    built = subprocess.run(
        ["kustomize", "build", str(FOLDER / folder)],  # noqa: S607 - Kustomize from the PATH
        check=True,
        capture_output=True,
        text=True,
    )
    manifests = map(Manifest, yaml.safe_load_all(built.stdout))
    return {(str(m["kind"]), str(m.at("metadata", "name"))): m for m in manifests}


def pod(name: str) -> Manifest:
    kind = "Job" if name == "migrate" else "Deployment"
    return rendered()[kind, name].part("spec", "template", "spec")


def container(name: str) -> Manifest:
    (only,) = pod(name).parts("containers")
    return only


@pytest.mark.parametrize("folder", ["base", "production"])
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_are_valid(folder: str, version: str) -> None:
    """The schemas are strict: unknown fields are errors. KEDA's kind is not among them."""
    for (kind, _), manifest in rendered(folder).items():
        if kind != "ScaledObject":
            kubernetes_validate.validate(manifest, version, strict=True)


def test_an_unknown_field_is_an_error() -> None:
    manifest = rendered()["Deployment", "worker"]
    wrong = {**manifest, "spec": {**manifest.part("spec"), "replica": 1}}

    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@pytest.mark.parametrize("name", [*PROCESSES, "migrate"])
def test_every_pod_is_hardened(name: str) -> None:
    """No root, no capabilities, a read-only file system, limits, and no access to the cluster."""
    secured = pod(name).part("securityContext")
    image = str(container(name)["image"])

    assert secured["runAsNonRoot"] is True
    assert (secured["runAsUser"], secured["fsGroup"]) == (10001, 10001)
    assert secured["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert set(container(name).part("resources", "limits")) == {"cpu", "memory"}
    assert image == "registry.example/chordwise:0.1.0"
    assert image.rpartition("/")[2] in COMPOSE


@pytest.mark.parametrize("name", [*PROCESSES, "migrate"])
def test_secrets_are_files_and_the_home_is_private(name: str) -> None:
    """No environment variable has a secret; the home is a new folder in a volume of the pod."""
    volumes = {str(volume["name"]): volume for volume in pod(name).parts("volumes")}
    mounts = {str(mount["mountPath"]): mount for mount in container(name).parts("volumeMounts")}
    environment = {str(entry["name"]): entry for entry in container(name).parts("env")}
    home = PurePosixPath(str(environment["CHORDWISE_HOME"]["value"]))
    secrets = mounts[str(Settings.secrets_folder)]

    assert all(set(entry) == {"name", "value"} for entry in environment.values())
    assert volumes[str(secrets["name"])].at("secret", "secretName") == "chordwise"
    assert secrets["readOnly"] is True
    kept = "persistentVolumeClaim" if name == "web" else "emptyDir"
    assert kept in volumes[str(mounts[str(home.parent)]["name"])]
    assert all(len(volume) == len(("name", "source")) for volume in volumes.values())
    assert {str(mount["name"]) for mount in mounts.values()} == set(volumes)


def test_only_processes_that_read_files_mount_the_folders() -> None:
    mounts = {
        name: mount.get("readOnly", False)
        for name in (*PROCESSES, "migrate")
        for mount in container(name).parts("volumeMounts")
        if mount["mountPath"] == "/folders"
    }

    assert mounts == {"reader": False, "scheduler": False, "web": True}


def test_commands_and_probes_are_those_of_compose() -> None:
    """The probe of a reader, which Compose does not start, is its command with `health`."""
    services = Compose.model_validate(yaml.safe_load(COMPOSE)).services
    commands = {name: container(name)["command"] for name in (*PROCESSES, "migrate")}
    probes = {
        name: container(name).at("readinessProbe", "exec", "command")
        for name in (*SCALED, "scheduler")
    }

    reader = commands.pop("reader")
    assert commands == {name: services[name].command for name in commands}
    assert reader == ["python", "-m", "worker", "--queues", "read"]
    assert probes.pop("reader") == [*reader, "health"]
    for name, probe in probes.items():
        check = services[name].healthcheck
        assert check
        assert ["CMD", *probe] == check.test  # type: ignore[misc]  # YAML
    assert container("web").at("livenessProbe", "httpGet", "path") == "/health"


@pytest.mark.parametrize("name", [*SCALED, "scheduler"])
def test_an_outage_restarts_no_pod_before_its_time(name: str) -> None:
    """A process keeps paid answers in an outage, and has time to return its work."""
    settings = Settings()
    probe = container(name).part("livenessProbe")
    seconds = int(str(probe["periodSeconds"])) * int(str(probe["failureThreshold"]))

    assert seconds > settings.pipeline.database_outage_timeout_seconds
    grace = int(str(pod(name)["terminationGracePeriodSeconds"]))
    assert grace > settings.worker.shutdown_grace_seconds


@pytest.mark.parametrize("name", [*SCALED, "scheduler"])
def test_pods_are_lost_one_at_a_time(name: str) -> None:
    budget = rendered()["PodDisruptionBudget", name].part("spec")

    assert budget["maxUnavailable"] == 1
    deployment = rendered()["Deployment", name].part("spec")
    assert budget["selector"] == deployment["selector"]
    labels = deployment.part("template", "metadata", "labels")
    assert budget.part("selector", "matchLabels").items() <= labels.items()
    assert deployment.get("replicas") == (2 if name == "scheduler" else None)


@pytest.mark.parametrize("name", SCALED)
def test_workers_and_readers_follow_the_queue(name: str) -> None:
    """The metric of the query is tested with those of alerts and dashboard."""
    scaled = rendered()["ScaledObject", name].part("spec")
    (trigger,) = scaled.parts("triggers")

    assert scaled["scaleTargetRef"] == {"name": name}
    bounds = (0, int(str(scaled["minReplicaCount"])), int(str(scaled["maxReplicaCount"])))
    assert all(low < high for low, high in pairwise(bounds))
    assert trigger["type"] == "prometheus"
    assert set(trigger.part("metadata")) == {"serverAddress", "query", "threshold"}


def test_only_processes_that_call_others_reach_other_networks() -> None:
    """The pages accept requests of the Ingress alone, and every pod those for its metrics."""
    policies = {
        name: m.part("spec") for (kind, name), m in rendered().items() if kind == "NetworkPolicy"
    }
    providers = policies["providers"].at("podSelector", "matchExpressions", 0, "values")

    assert providers == ["worker", "scheduler", "web"]
    assert policies["providers"].at("egress", 0, "ports") == [{"port": 443}]
    assert policies["chordwise"]["podSelector"] == {}
    assert policies["chordwise"]["policyTypes"] == ["Ingress", "Egress"]
    assert policies["web"].at("ingress", 0, "ports") == [{"port": 8484}]


def test_ports_and_settings_fit_the_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in container("worker").parts("env"):
        if str(entry["name"]).startswith("CHORDWISE_") and entry["name"] != "CHORDWISE_CONFIG":
            monkeypatch.setenv(str(entry["name"]), str(entry["value"]))

    loaded = settings_module.load(FOLDER / "production" / "chordwise.toml")

    ports = {name: container(name).at("ports", 0, "containerPort") for name in PROCESSES}
    assert ports == {
        "worker": loaded.metrics.worker_port,
        "reader": loaded.metrics.reader_port,
        "scheduler": loaded.metrics.scheduler_port,
        "web": loaded.web.port,
    }
    for name in (*SCALED, "scheduler"):
        notes = rendered()["Deployment", name].part("spec", "template", "metadata", "annotations")
        assert notes["prometheus.io/port"] == str(ports[name])
    assert (loaded.intake.read, loaded.embedded.start, loaded.inbox.polling) == (
        "workers",
        False,
        True,
    )
