"""The files of deploy/: what can be said of them without an engine that runs them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import pytest
import yaml

from reconciler.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("reconciler-service.service", "reconciler-worker@.service")
VARIABLES = {"DATABASE_URL", "RECONCILER_RUN_TOKEN"}
"""What the command line and the example's configuration read of the environment."""
GRACE = 25
LAST_WORDS = 15
"""Seconds that a process may take after its grace to write down what became of its jobs."""


@cache
def read_compose() -> dict[str, Any]:
    """Read compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


@cache
def read_manifests() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Read all documents of all manifests, each with its file's name."""
    return tuple(
        (path.name, document)
        for path in sorted((DEPLOY / "kubernetes").iterdir())
        for document in yaml.safe_load_all(path.read_text())
    )


def list_pods() -> list[tuple[str, dict[str, Any]]]:
    """List the pods that the manifests make."""
    return [
        (f"{document['kind']} {document['metadata']['name']}", document["spec"]["template"])
        for _, document in read_manifests()
        if "template" in document.get("spec", {})
    ]


def list_containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """List the containers of the manifests."""
    for name, pod in list_pods():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield f"{name} {container['name']}", container


def read_unit(name: str) -> dict[str, list[str]]:
    """Read the settings of a unit of systemd, each with all its values."""
    settings: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            settings.setdefault(key, []).append(value)
    return settings


def read_exec(name: str) -> tuple[str, list[str]]:
    """Return the script that a unit starts, and what that calls reconciler with."""
    shell, option, script, *_ = shlex.split(read_unit(name)["ExecStart"][0])
    assert (shell, option) == ("/bin/sh", "-c")
    words = shlex.split(script.partition(" exec ")[2])
    assert words[0] == "/opt/reconciler/bin/reconciler"
    return script, words[1:]


def list_commands() -> list[tuple[str, list[str]]]:
    """List where reconciler is called in the files of deploy/ and compose.yaml, and with what."""
    calls = [
        (f"compose.yaml {name}", service["command"])
        for name, service in read_compose()["services"].items()
        if service.get("image") == "reconciler"
    ]
    calls += [(name, container["args"]) for name, container in list_containers()]
    return calls + [(name, read_exec(name)[1]) for name in UNITS]


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command line as the real one does, without doing anything."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    return command.make_context(context.info_name, list(words), parent=context.parent).params


def seconds(text: str) -> int:
    """Read `45s`."""
    found = re.fullmatch(r"(\d+)s", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize(
    ("place", "words"), list_commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_is_one_that_there_is(place: str, words: list[str]) -> None:
    """Commands and options of the deployment parse; whoever runs for long gives its jobs the same grace."""
    params = parse(words)
    if words[0] in {"serve", "worker"}:
        assert params["grace"].total_seconds() == GRACE, place
        assert params["app"] == "handlers"


def test_all_ways_make_the_same_roles() -> None:
    """Compose and Kubernetes put the same logins into the same roles."""
    grants = {tuple(parse(words)["grants"]) for _, words in list_commands() if words[0] == "roles"}
    assert grants == {(("applier", "deploy"), ("service", "service"), ("worker", "worker"))}


def test_the_image_is_built_from_what_is_there() -> None:
    """Each path that the Dockerfile copies exists, and .dockerignore lets it and nothing else through."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    copied = [
        path
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for path in line.split()[1:-1]
    ]
    assert "reconciler" in copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert sorted(line.removeprefix("!") for line in ignored if line.startswith("!")) == sorted(copied)


def test_the_image_has_what_the_service_needs_and_no_root() -> None:
    """It is of a pinned version, runs as a number, asks /health where it listens, and has the extras."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:3.13-slim-bookworm"}
    assert 'ENTRYPOINT ["reconciler"]' in text
    assert re.findall(r"^(?:USER|EXPOSE) (\S+)", text, re.MULTILINE) == ["10001:10001", "8000"]
    assert "http://127.0.0.1:8000/health" in text
    extras = re.search(r"\[([a-z,]+)\]\"", text)
    assert extras
    with (ROOT / "pyproject.toml").open("rb") as file:
        import tomllib

        known = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= known.keys()


def test_compose_starts_postgresql_alone_unless_asked() -> None:
    """`docker compose up --wait` starts the one service that it always did; the rest has a profile."""
    services = read_compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["postgres"]
    assert {tuple(service["profiles"]) for service in services.values() if "profiles" in service} == {
        ("app",)
    }


def test_compose_does_one_thing_after_the_other() -> None:
    """Each waits for what has to be over: logins, migrations, roles, apply, then service and worker."""
    services = read_compose()["services"]
    waits = {
        name: {other: one["condition"] for other, one in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    done = "service_completed_successfully"
    assert waits == {
        "postgres": {},
        "logins": {"postgres": "service_healthy"},
        "migrate": {"logins": done},
        "roles": {"migrate": done},
        "apply": {"roles": done},
        "service": {"apply": done},
        "worker": {"apply": done},
    }


def test_compose_gives_what_is_read_and_opens_nothing_to_others() -> None:
    """Variables are those that are read, mounted paths exist, and ports are open to this machine alone."""
    for name, service in read_compose()["services"].items():
        if service.get("image") == "reconciler":
            assert set(service["environment"]) <= VARIABLES, name
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source in read_compose()["volumes"] or (ROOT / source).exists(), mount
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        if "restart" in service:
            assert seconds(service["stop_grace_period"]) >= GRACE + LAST_WORDS
    # The image's check is the service's.
    assert "healthcheck" not in read_compose()["services"]["service"]
    assert read_compose()["services"]["worker"]["healthcheck"] == {"disable": True}


@pytest.mark.parametrize("name", UNITS)
def test_units_are_hardened_and_outlast_the_grace(name: str) -> None:
    """No root, no secret in the unit, started again, and stopped later than its jobs are given back."""
    unit = read_unit(name)
    for key, value in {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "UMask": "0077",
        "Restart": "always",
    }.items():
        assert unit[key] == [value], key
    assert seconds(unit["TimeoutStopSec"][0]) >= GRACE + LAST_WORDS
    script, _ = read_exec(name)
    loaded = {value.partition(":")[0] for value in unit["LoadCredential"]}
    assert set(re.findall(r"\$CREDENTIALS_DIRECTORY/([a-z-]+)", script)) == loaded
    assert set(re.findall(r"([A-Z_]+)=", script)) <= VARIABLES


@pytest.mark.parametrize("name", UNITS)
def test_units_hand_their_secrets_over(name: str, tmp_path: Path) -> None:
    """What the shell starts finds each secret in its variable, and the options as they stand there."""
    for value in read_unit(name)["LoadCredential"]:
        (tmp_path / value.partition(":")[0]).write_text(f"it's {value}\n")
    shell = shlex.split(read_unit(name)["ExecStart"][0].replace("%i", "mail"))
    program = tmp_path / "reconciler"
    program.write_text('#!/bin/sh\necho "$DATABASE_URL|$RECONCILER_RUN_TOKEN|$*"\n')
    program.chmod(0o755)
    shell[2] = shell[2].replace("/opt/reconciler/bin/reconciler", str(program))
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(shell, env=env, capture_output=True, text=True, check=True).stdout.strip()
    database, token, words = said.split("|")
    assert database.startswith("it's database-url:/etc/reconciler/credentials/")
    assert bool(token) == (name == UNITS[0])
    assert words.split()[:3] == [read_exec(name)[1][0], "--app", "handlers"]
    assert ("--queue mail" in words) == (name == UNITS[1])


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    """Its own check finds nothing to say of them."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / name.replace("@", "@default")
    shutil.copy(DEPLOY / "systemd" / name, path)
    checked = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False)
    # Of our units: the machine's own are read along.
    said = [line for line in checked.stderr.splitlines() if "reconciler-" in line]
    assert (checked.returncode, said) == (0, [])


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_manifests_have_the_shape_that_kubernetes_wants(version: str) -> None:
    """Each document fits the schema of its kind, without a key too many."""
    for _, document in read_manifests():
        kubernetes_validate.validate(document, version, strict=True)
    assert len(read_manifests()) >= 10


def test_pods_are_restricted() -> None:
    """What the standard `restricted` asks for holds of every pod and container, and none has a token."""
    for name, pod in list_pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] == "reconciler"
    for name, container in list_containers():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_pods_find_their_secrets_and_are_found() -> None:
    """Variables are those that are read, each secret is in the example, and selectors fit the pods."""
    (secret,) = (document for _, document in read_manifests() if document["kind"] == "Secret")
    for name, container in list_containers():
        assert {one["name"] for one in container["env"]} <= VARIABLES, name
        for one in container["env"]:
            reference = one["valueFrom"]["secretKeyRef"]
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["stringData"], name
    labels = [pod["metadata"]["labels"] for _, pod in list_pods()]
    for name, document in read_manifests():
        spec = document.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= one.items() for one in labels), name


def test_pods_are_asked_how_they_are_and_end_in_order() -> None:
    """The service is probed where it listens, and whoever has jobs gets longer than their grace to end."""
    pods = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"] for _, pod in list_pods()}
    (service,) = pods["service"]["containers"]
    assert service["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert service["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert service["ports"] == [{"name": "http", "containerPort": 8000}]
    assert "--port=8000" in service["args"]
    pause = int(service["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pods["service"]["terminationGracePeriodSeconds"] >= pause + GRACE + LAST_WORDS
    assert pods["worker"]["terminationGracePeriodSeconds"] >= GRACE + LAST_WORDS
