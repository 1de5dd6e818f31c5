"""compose.yaml: valid by the compose specification, and every process gets settings that fit."""

import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from compose_spec import PyCompose
from sqlalchemy import make_url
from typer.testing import CliRunner

from tacit.cli import app
from tacit.config import load_settings, require_backends
from tacit.service import ROLES
from tests.deploy.manifests.reading import (
    BASE,
    MANIFESTS,
    REPOSITORY,
    compose,
    tacit_words,
)

PROCESSES = ["control", "serving", "screening", "loop"]


def _plain() -> str:
    """Without merge keys (``<<``), which compose allows and the validator does not know."""
    return yaml.safe_dump(compose())


def test_it_is_valid() -> None:
    assert set(PROCESSES) <= set(PyCompose.from_yaml(_plain()).service_names())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("condition: service_healthy", "condition: service_well"),
        ("interval: 10s", "interval: soon"),
        ("healthcheck:", "healthchecks:"),
    ],
)
def test_what_is_not_compose_is_refused(right: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong.split()[-1].rstrip(":")):
        PyCompose.from_yaml(_plain().replace(right, wrong))


@pytest.mark.parametrize("role", PROCESSES)
def test_each_process_is_told_where_the_others_are(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = compose()["services"]
    service = services[role]
    command: list[str] = service["command"]
    words = tacit_words(command)
    assert words == ["run", role, "--profile", "cluster"]
    assert role in ROLES
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings(profile="cluster")
    require_backends(
        "cluster", database_url=settings.database_url, stream=settings.collector.stream
    )
    hosts = [
        settings.collector.kafka.bootstrap_servers.split(":")[0],
        make_url(settings.resolved_database_url).host,
        urlsplit(settings.tracking_uri).hostname,
        service["environment"]["RAY_ADDRESS"].split(":")[0],
    ]
    assert hosts == ["kafka", "postgres", "mlflow", "ray-head"]
    assert set(hosts) <= set(services)
    ports = {"control": settings.collector.port, "serving": settings.deploy.port}
    if role in ports:
        assert service["ports"] == [f"127.0.0.1:{ports[role]}:{ports[role]}"]
        assert f"localhost:{ports[role]}/" in service["healthcheck"]["test"][-1]


def test_nothing_waits_for_the_health_of_what_reports_none() -> None:
    services: dict[str, Any] = compose()["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            if wanted == {"condition": "service_completed_successfully"}:
                assert services[other]["restart"] == "no", f"{name} waits for the end of {other}"
                continue
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in services[other], f"{name} waits for {other}"


def _volumes(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted where, of the named volumes that hold files of Tacit."""
    mounts = [mount.split(":") for mount in service.get("volumes", [])]
    return {source: ":".join(place) for source, *place in mounts}


def test_only_who_signs_has_the_signing_key_and_only_control_the_other_keys() -> None:
    services = compose()["services"]
    mounts = {name: _volumes(service) for name, service in services.items()}
    signing = {name: volumes.get("signing") for name, volumes in mounts.items()}
    read_only = "/var/lib/signing:ro"
    assert {name: place for name, place in signing.items() if place} == {
        "control": read_only,
        "loop": read_only,
        "signing-key": "/var/lib/signing",
    }
    verifying = {name for name, volumes in mounts.items() if "verifying" in volumes}
    assert verifying == {"serving", "signing-key"}
    assert mounts["serving"]["verifying"] == read_only
    assert {name for name, volumes in mounts.items() if "keys" in volumes} == {"control"}
    assert "home" not in mounts["screening"]
    assert "home" not in mounts["ray-head"]
    for role in PROCESSES:
        place = services[role]["environment"]["TACIT_GATEKEEPER__SIGNING_PATH"]
        assert place == "/var/lib/signing"
    words = tacit_words(services["signing-key"]["command"])
    assert words[:3] == ["keys", "signing", "/var/lib/signing"]


def test_volumes_and_files_exist() -> None:
    tree = compose()
    for service in tree["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (MANIFESTS / source).is_file()
            else:
                assert source in tree["volumes"]


def test_the_commands_of_the_manifests_exist() -> None:
    for command in (["run"], ["up"], ["doctor"]):
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0


def test_the_image_is_built_of_what_is_there() -> None:
    lines = (MANIFESTS / "Dockerfile").read_text().splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    copied = {
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert all((REPOSITORY / name).exists() for name in copied)
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages | {project["project"]["readme"], "constraints.txt", "pyproject.toml"} <= copied
    let_through = (MANIFESTS / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(let_through)
    [install] = [line for line in lines if "'.[" in line]
    extras = install.split("'.[")[1].split("]")[0].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])


def test_the_image_runs_as_a_user_and_names_no_other_registry() -> None:
    lines = (MANIFESTS / "Dockerfile").read_text().splitlines()
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user == "10001:10001"
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    images += [service["image"] for service in compose()["services"].values()]
    for image in images:
        assert "." not in image.split("/")[0].split(":")[0], f"{image} names a host"
    assert BASE.is_dir()
