"""The manifests as the tests read them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
MANIFESTS = REPOSITORY / "deploy" / "manifests"
BASE = MANIFESTS / "kubernetes" / "base"
GIVEN = {"POSTGRES_PASSWORD": "secret"}
"""Variables that compose.yaml asks for."""


def interpolated(text: str) -> str:
    """``text`` as compose reads it: ``${NAME:-default}``, ``${NAME:?message}`` and ``$$``."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if name in GIVEN:
            return GIVEN[name]
        assert kind == ":-", f"{name} has no default"
        return str(rest)

    pattern = r"\$\$|\$\{(?P<name>[A-Z_]+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}"
    return re.sub(pattern, value, text)


def compose_text() -> str:
    """compose.yaml with its variables filled in."""
    return interpolated((MANIFESTS / "compose.yaml").read_text())


def compose() -> dict[str, Any]:
    """compose.yaml as a tree."""
    tree: dict[str, Any] = yaml.safe_load(compose_text())
    return tree


def resources(text: str | None = None) -> list[dict[str, Any]]:
    """All Kubernetes objects in ``text``, by default in the base."""
    if text is None:
        files = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
        text = "\n---\n".join((BASE / name).read_text() for name in files)
    return [tree for tree in yaml.safe_load_all(text) if tree is not None]


def pod_templates(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods that ``resource`` makes."""
    spec = resource.get("spec", {})
    if resource["kind"] == "Deployment":
        yield spec["template"]
    if resource["kind"] == "RayCluster":
        yield from (g["template"] for g in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))


def tacit_words(command: list[str]) -> list[str]:
    """The words of the ``tacit`` command that ``command`` runs; empty if it runs another."""
    words = [word for part in command for word in shlex.split(part)]
    return words[words.index("tacit") + 1 :] if "tacit" in words else []
