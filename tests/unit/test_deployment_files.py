"""The files in compose/ are valid: checked by schemas, the real server, systemd, and rules for safe operation."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from midwatch.schemas.policy import RunLimits
from midwatch.workers.cli.commands.doctor_checks import VALKEY_FROM, check_eviction, check_persistence
from midwatch.workers.cli.program import program
from midwatch.workers.local.embedded_server import server_binary
from midwatch.workers.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
SERVICES = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
DEPLOYMENTS = list(yaml.safe_load_all((COMPOSE / "k8s" / "midwatch.yaml").read_text()))
CONTAINERS = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in DEPLOYMENTS if one["kind"] == "Deployment"
}
YAMLLINT = "{extends: default, rules: {line-length: {max: 130}}}"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def check_midwatch(arguments: list[str]) -> None:
    """Check that a `midwatch` command exists and accepts these options."""
    command = program.get_command(program.make_context("midwatch", [], resilient_parsing=True), arguments[0])
    assert command is not None, arguments
    command.make_context(arguments[0], list(arguments[1:]))


@pytest.mark.process
def test_compose_file_satisfies_the_specification():
    """The file is valid by the schema that Compose publishes."""
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "compose/compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_yaml_is_tidy():
    """There are no duplicate keys, no tabs and no lines over 130 characters."""
    done = run(tool("yamllint"), "--strict", "-d", YAMLLINT, "compose")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_safe_to_run(name):
    """A service has a health check, time to end, a restart policy and a fixed image tag. Ports are only on loopback."""
    service = SERVICES[name]
    assert "container_name" not in service
    assert not service["image"].endswith(":latest")
    assert ":" in service["image"]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert seconds(service["stop_grace_period"]) > 0
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    if name != "valkey":
        assert service["init"] is True
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "valkey"])
def test_commands_of_services_are_valid(name):
    """Each container runs a valid `midwatch` command line."""
    check_midwatch(SERVICES[name]["command"])


def test_only_model_workers_have_keys():
    """Model workers call vendors and have time for a whole call. Tool workers run the user's code without the keys."""
    model, tools = SERVICES["model"], SERVICES["tools"]
    assert model["healthcheck"]["test"] == tools["healthcheck"]["test"] == ["CMD", "midwatch", "doctor"]
    assert "model" in " ".join(model["command"])
    assert "tools" in tools["command"]
    assert tools["deploy"]["replicas"] >= 1 <= model["deploy"]["replicas"]
    assert seconds(model["stop_grace_period"]) > RunLimits().call_timeout_s
    keys = {name for name in model["environment"] if name.endswith("_API_KEY")}
    assert keys == {"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"}
    for name, service in SERVICES.items():
        assert name == "model" or not keys & set(service.get("environment", ()))


def test_environment_of_services_has_known_variables_only():
    """With a misspelt variable the default would be used silently."""
    known = {f"MIDWATCH_{name.upper()}" for name in Settings.model_fields} | {"FLOWER_BASIC_AUTH", "VALKEYCLI_AUTH"}
    known |= {str(field.validation_alias) for field in Settings.model_fields.values() if field.validation_alias}
    named = {name for service in SERVICES.values() for name in service.get("environment", ())}
    assert named <= known
    used = set(re.findall(r"\$\{(\w+)", (COMPOSE / "compose.yaml").read_text()))
    offered = set(re.findall(r"^#? ?([A-Z_]+)=", (COMPOSE / "env.example").read_text(), re.MULTILINE))
    assert used <= offered


def test_the_simulator_starts_only_with_its_profile():
    """A fleet without a key must not answer with simulated texts by accident."""
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["simulator"]


def test_the_server_is_new_enough():
    """The image has at least the version that `midwatch doctor` requires."""
    version = SERVICES["valkey"]["image"].rpartition(":")[2]
    assert tuple(map(int, version.split("."))) >= VALKEY_FROM


@pytest.mark.process
def test_the_real_server_accepts_the_configuration(tmp_path):
    """With this file Valkey keeps an append-only file and evicts nothing, so `doctor` has no complaint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = tmp_path / "valkey.conf"
    here.write_text((COMPOSE / "valkey.conf").read_text().replace("dir /data", f"dir {tmp_path}"))
    process = subprocess.Popen(
        [str(server_binary()), str(here), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", "secret"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        client = redis.Redis(
            host="127.0.0.1", port=port, password="secret", retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 40)
        )
        client.ping()
        assert process.poll() is None, process.stdout.read()
        info = client.info("everything")
        assert check_persistence(info, client.config_get("save")["save"]).result == "ok"
        assert check_eviction(info).result == "ok"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert 0 < info["maxmemory"] < 2 * 1024**3, "below the container's limit, with room for rewriting the file"
        client.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert (tmp_path / "appendonlydir").is_dir()


def test_the_image_is_built_in_stages_and_runs_without_root():
    """The base is pinned, wheels are built in a first stage, no package is downloaded in the last, signals reach midwatch."""
    lines = (COMPOSE / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert bases == ["python:3.12-slim", "python:3.12-slim"]
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    users = [line.split()[1] for line in last if line.startswith("USER")]
    assert users
    assert users[-1].isdecimal()
    assert int(users[-1]) > 0
    assert 'ENTRYPOINT ["midwatch"]' in last, "the exec form: a shell would swallow SIGTERM"
    text = "\n".join(lines)
    assert "--constraint constraints.txt" in text
    assert "--no-index" in text
    copied = {word.removeprefix("./") for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"midwatch", "schemas", "orchestration", "workers", "pyproject.toml"} <= copied


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.process
def test_systemd_accepts_the_unit(tmp_path):
    """`systemd-analyze verify` finds no fault. The test replaces the installed program by one that exists."""
    unit = (COMPOSE / "systemd" / "midwatch-worker@.service").read_text()
    program_path = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)[1]
    (tmp_path / "midwatch-worker@model.service").write_text(unit.replace(program_path, sys.executable))
    done = run("systemd-analyze", "verify", str(tmp_path / "midwatch-worker@model.service"))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_gives_steps_time_to_end():
    """Only the main process gets SIGTERM. It has more time than a model call. After a wrong setting it is not restarted."""
    unit = (COMPOSE / "systemd" / "midwatch-worker@.service").read_text()
    options = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert options["KillMode"] == "mixed"
    assert int(options["TimeoutStopSec"]) > RunLimits().call_timeout_s
    assert (options["Restart"], options["RestartPreventExitStatus"]) == ("always", "2")
    assert options["User"] not in ("", "root")
    arguments = options["ExecStart"].split(" ", 1)[1].replace("$WORKER_ARGS", "--queues %i").replace("%i", "model")
    check_midwatch(arguments.split())


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_deployment_runs_without_root(name):
    """It can't become root. Its file system is read-only, its memory is limited, and its command is valid."""
    pod = CONTAINERS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"]
    assert not container["image"].endswith(":latest")
    check_midwatch(container["args"])


def test_selectors_match_exactly_one_template():
    """Kubernetes accepts a selector that matches nothing, and then runs nothing."""
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in DEPLOYMENTS if one["kind"] == "Deployment"]
    for one in DEPLOYMENTS:
        selector = one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
        assert sum(selector.items() <= template.items() for template in labels) == 1, one["metadata"]["name"]


def test_only_model_deployments_have_keys():
    """They also have time for a whole call, as in the compose file."""
    assert CONTAINERS["midwatch-model"]["terminationGracePeriodSeconds"] > RunLimits().call_timeout_s
    with_keys = [name for name, pod in CONTAINERS.items() if "midwatch-models" in str(pod["containers"][0]["envFrom"])]
    assert with_keys == ["midwatch-model"]
