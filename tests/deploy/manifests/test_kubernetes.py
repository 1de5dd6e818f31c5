"""Kubernetes manifests: valid by the published schemas, and nothing refers to what is not there.

KubeRay's own resource has no schema in a package: its pod templates are validated as such, its
fields against the list below.
"""

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray import __version__ as ray_version

from tacit.config import load_settings, require_backends
from tacit.service import DRAIN_S, ROLES
from tests.deploy.manifests.reading import BASE, pod_templates, resources, tacit_words

VERSION = "1.34"
RAY_FIELDS = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
GROUP_FIELDS = {"rayStartParams", "template"}
WORKER_FIELDS = GROUP_FIELDS | {"groupName", "replicas", "minReplicas", "maxReplicas"}


def _validate(resource: dict[str, Any]) -> None:
    if resource["kind"] != "RayCluster":
        kubernetes_validate.validate(resource, VERSION, strict=True)
        return
    assert resource["apiVersion"] == "ray.io/v1"
    spec = resource["spec"]
    assert set(spec) == RAY_FIELDS
    assert set(spec["headGroupSpec"]) == GROUP_FIELDS
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert all(set(group) == WORKER_FIELDS for group in spec["workerGroupSpecs"])
    for template in pod_templates(resource):
        made = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        kubernetes_validate.validate(made, VERSION, strict=True)


def _named(kind: str) -> dict[str, dict[str, Any]]:
    return {r["metadata"]["name"]: r for r in resources() if r["kind"] == kind}


def _containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for template in pod_templates(resource) for c in template["spec"]["containers"]]


def test_they_are_valid() -> None:
    for resource in resources():
        _validate(resource)


@pytest.mark.parametrize("kind", ["Deployment", "RayCluster"])
def test_a_wrong_field_is_refused(kind: str) -> None:
    wrong = copy.deepcopy(next(iter(_named(kind).values())))
    _containers(wrong)[0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        _validate(wrong)


def test_all_files_are_applied() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in BASE.glob("*.yaml")} == {"kustomization.yaml", *listed}


def test_each_process_runs_once_with_settings_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _named("ConfigMap")["tacit-settings"]["data"]
    (tmp_path / "tacit.toml").write_text(settings["tacit.toml"])
    monkeypatch.setenv("RAY_ADDRESS", settings["RAY_ADDRESS"])
    monkeypatch.setenv("TACIT_DATABASE_URL", "postgresql://u:p@db/tacit")
    loaded = load_settings(tmp_path / "tacit.toml", profile="cluster")
    require_backends("cluster", database_url=loaded.database_url, stream=loaded.collector.stream)

    deployments = _named("Deployment")
    roles = []
    for container in (c for d in deployments.values() for c in _containers(d)):
        words = tacit_words(container["command"])
        if words:
            assert words[0] == "run"
            assert words[2:] == ["--profile", "cluster", "--config", "/etc/tacit/tacit.toml"]
            roles.append(words[1])
    assert sorted(roles) == sorted(set(ROLES) - {"mlflow"})
    ports = {"tacit-control": loaded.collector.port, "tacit-serving": loaded.deploy.port}
    for name, port in ports.items():
        [container] = _containers(deployments[name])
        assert container["ports"][0]["containerPort"] == port
        assert _named("Service")[name]["spec"]["ports"][0]["port"] == port
    assert loaded.tracking_uri == "http://mlflow:5000"
    assert "mlflow" in _named("Service")


def test_ray_is_where_the_driver_looks_and_of_its_version() -> None:
    [(name, cluster)] = _named("RayCluster").items()
    address = _named("ConfigMap")["tacit-settings"]["data"]["RAY_ADDRESS"]
    assert address == f"{name}-head-svc:6379"  # KubeRay calls the head's service so
    assert cluster["spec"]["rayVersion"] == ray_version


def test_nothing_refers_to_what_is_not_there() -> None:
    claims, maps = _named("PersistentVolumeClaim"), _named("ConfigMap")
    for resource in resources():
        for template in pod_templates(resource):
            spec = template["spec"]
            volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
            for volume in volumes.values():
                if "persistentVolumeClaim" in volume:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims
                if "configMap" in volume:
                    data = maps[volume["configMap"]["name"]]["data"]
                    assert {i["key"] for i in volume["configMap"]["items"]} <= set(data)
                mounted = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])}
                assert volume["name"] in mounted
            for container in spec["containers"]:
                assert {m["name"] for m in container.get("volumeMounts", [])} <= set(volumes)
                for variable in container.get("env", []):
                    source = variable.get("valueFrom", {}).get("configMapKeyRef")
                    assert source is None or source["key"] in maps[source["name"]]["data"]


def _secret_files(resource: dict[str, Any]) -> set[tuple[str, str]]:
    """``(secret or claim, file)`` of all that its pods can read; ``*`` for a whole claim."""
    found = set()
    for template in pod_templates(resource):
        for volume in template["spec"].get("volumes", []):
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                found |= {(name, item["key"]) for item in volume["secret"]["items"]}
            if "persistentVolumeClaim" in volume:
                found.add((volume["persistentVolumeClaim"]["claimName"], "*"))
    return found


def test_each_process_can_read_the_secrets_it_needs_and_no_other() -> None:
    home, private = ("tacit-home", "*"), ("tacit-signing", "signing.pem")
    public = ("tacit-signing", "signing.pub")
    wanted = {
        "tacit-control": {home, private, public, ("tacit-keys", "*")},
        "tacit-loop": {home, private, public},
        "tacit-serving": {home, public},
        "tacit-screening": set(),
        "tacit-mlflow": {("tacit-mlflow", "*")},
    }
    assert {name: _secret_files(d) for name, d in _named("Deployment").items()} == wanted
    [ray] = _named("RayCluster").values()
    assert _secret_files(ray) == {home}

    variables = {
        name: [source["secretRef"] for c in _containers(d) for source in c.get("envFrom", [])]
        for name, d in _named("Deployment").items()
    }
    common = {"name": "tacit-secrets"}
    for role in ("control", "serving"):
        assert variables.pop(f"tacit-{role}") == [
            common,
            {"name": f"tacit-{role}", "optional": True},
        ]
    assert variables == {"tacit-loop": [common], "tacit-screening": [common], "tacit-mlflow": []}
    for deployment in _named("Deployment").values():
        for template in pod_templates(deployment):
            assert template["spec"]["automountServiceAccountToken"] is False


def test_the_signing_key_is_where_the_settings_say_and_no_stranger_reads_it() -> None:
    place = _named("ConfigMap")["tacit-settings"]["data"]["TACIT_GATEKEEPER__SIGNING_PATH"]
    for name in ("tacit-control", "tacit-loop", "tacit-serving"):
        deployment = _named("Deployment")[name]
        [container] = _containers(deployment)
        [mount] = [m for m in container["volumeMounts"] if m["name"] == "signing"]
        assert (mount["mountPath"], mount["readOnly"]) == (place, True)
        assert "TACIT_GATEKEEPER__SIGNING_PATH" in {v["name"] for v in container["env"]}
        [template] = pod_templates(deployment)
        [volume] = [v for v in template["spec"]["volumes"] if v["name"] == "signing"]
        assert volume["secret"]["defaultMode"] & 0o007 == 0


def test_replicas_of_serving_are_replaced_without_a_gap() -> None:
    serving = _named("Deployment")["tacit-serving"]["spec"]
    assert serving["replicas"] >= 2
    assert serving["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert _named("PodDisruptionBudget")["tacit-serving"]["spec"]["minAvailable"] >= 1
    pod = serving["template"]["spec"]
    [container] = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"  # 503 without a release
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"  # which it may yet wait for
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN_S
    [spread] = pod["topologySpreadConstraints"]
    assert spread["labelSelector"] == serving["selector"]


def test_selectors_find_their_pods() -> None:
    labels = [template["metadata"]["labels"] for r in resources() for template in pod_templates(r)]
    selectors = [s["spec"]["selector"] for s in _named("Service").values()]
    for kind in ("Deployment", "PodDisruptionBudget"):
        selectors += [r["spec"]["selector"]["matchLabels"] for r in _named(kind).values()]
    for selector in selectors:
        assert sum(selector.items() <= found.items() for found in labels) == 1


def test_no_pod_runs_as_root_or_may_become_it() -> None:
    for resource in resources():
        for template in pod_templates(resource):
            assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in _containers(resource):
            allowed = container["securityContext"]
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_kustomize_renders_it(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, whose kustomize renders the manifests")
    command = ["kubectl", "kustomize", str(BASE.parent / overlay)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rendered = resources(done.stdout)
    assert len(rendered) == len(resources())
    for resource in rendered:
        _validate(resource)
    tag = {"base": "cpu", "gpu": "cuda"}[overlay]
    assert {c["image"] for r in rendered for c in _containers(r)} == {f"tacit:{tag}"}
