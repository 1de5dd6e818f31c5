"""Everything that goes to MLflow: one run a cycle, one registered model a policy line.

Metric names stand in ``tacit.metrics``. ``MlflowClient`` is used throughout: the fluent API keeps a
global active run, and two cycles in one process would mix.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

# Progress belongs to the terminal's owner; MLflow would print addresses in between.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tacit.contracts import Contract, Digest, utc_now
from tacit.metrics import MetricName

__all__ = ["Alias", "MetricName", "Tracking"]

logger = logging.getLogger(__name__)

CHECKPOINT_SCHEME = "tacit-checkpoint"


class Alias(StrEnum):
    """Aliases of a registered model."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"
    ANCHOR = "anchor"


class Tracking:
    """One MLflow server or store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def start_cycle(self, policy: str, cycle_id: str) -> str:
        """Open the run of a cycle, or find it again after a restart; returns its run id."""
        experiment_id = self._experiment(policy)
        found = self._client.search_runs([experiment_id], f"tags.`tacit.cycle` = '{cycle_id}'")
        if found:
            run_id: str = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        run = self._client.create_run(
            experiment_id, run_name=cycle_id, tags={"tacit.cycle": cycle_id, "tacit.policy": policy}
        )
        return str(run.info.run_id)

    def log_config(self, run_id: str, config: Mapping[str, Any]) -> None:
        """The resolved settings as params (flattened) and as an artifact."""
        params = [Param(k, str(v)[:500]) for k, v in _flatten(config).items()]
        for start in range(0, len(params), 100):  # MLflow takes 100 params a call
            self._client.log_batch(run_id, params=params[start : start + 100])
        self.log_json(run_id, "config.json", config)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Metrics of one step."""
        now_ms = int(utc_now().timestamp() * 1000)
        self._client.log_batch(
            run_id, metrics=[Metric(str(k), float(v), now_ms, step) for k, v in metrics.items()]
        )

    def log_contract(self, run_id: str, name: str, contract: Contract) -> None:
        """A contract as the JSON artifact ``name``."""
        self.log_json(run_id, name, contract.model_dump(mode="json"))

    def log_json(self, run_id: str, name: str, value: Any) -> None:
        """``value`` as the JSON artifact ``name``."""
        self.log_text(run_id, name, json.dumps(value, indent=2, ensure_ascii=False))

    def log_text(self, run_id: str, name: str, text: str) -> None:
        """``text`` as the artifact ``name``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text)
            self._client.log_artifact(run_id, str(path))

    @contextmanager
    def live(self, run_id: str) -> Iterator["LiveMetrics"]:
        """Metrics of a training under way; what is buffered is sent on leaving."""
        metrics = LiveMetrics(self._client, run_id)
        try:
            yield metrics
        finally:
            metrics.flush()

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Tags of a run."""
        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def end_cycle(self, run_id: str, *, failed: bool = False) -> None:
        """Close the run; one that is closed keeps the time it ended at."""
        if self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def register(self, policy: str, weights: Digest, *, run_id: str | None = None) -> str:
        """Register a checkpoint under the name of its policy line; returns the version.

        The same weights again give the version they have. The source is the checkpoint's digest:
        weights stay in the content-addressed store, where serving verifies them.
        """
        try:
            self._client.create_registered_model(policy)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self.version_of(policy, weights)
        if known is not None:
            return known
        version = self._client.create_model_version(
            policy,
            source=f"{CHECKPOINT_SCHEME}:/{weights.removeprefix('sha256:')}",
            run_id=run_id,
            tags={"tacit.weights": weights},
            await_creation_for=None,
        )
        return str(version.version)

    def tag_version(self, policy: str, weights: Digest, tags: Mapping[str, str]) -> None:
        """Tags of the model version that holds ``weights``."""
        version = self.version_of(policy, weights)
        for key, value in tags.items():
            self._client.set_model_version_tag(policy, version, key, value)

    def version_tags(self, policy: str, weights: Digest) -> dict[str, str]:
        """Tags of the model version that holds ``weights``; empty if there is none."""
        version = self.version_of(policy, weights)
        if version is None:
            return {}
        return dict(self._client.get_model_version(policy, version).tags)

    def untag_version(self, policy: str, weights: Digest, key: str) -> None:
        """Take a tag off the model version that holds ``weights``."""
        self._client.delete_model_version_tag(policy, self.version_of(policy, weights), key)

    def version_of(self, policy: str, weights: Digest) -> str | None:
        """The model version that holds ``weights``."""
        for version in self._client.search_model_versions(f"name = '{policy}'"):
            if version.tags.get("tacit.weights") == weights:
                return str(version.version)
        return None

    def set_alias(self, policy: str, alias: Alias, version: str) -> None:
        """Point ``alias`` of the policy line at ``version``."""
        self._client.set_registered_model_alias(policy, alias, version)

    def clear_alias(self, policy: str, alias: Alias) -> None:
        """Take ``alias`` away; nothing happens if it is not set."""
        self._client.delete_registered_model_alias(policy, alias)

    def alias_weights(self, policy: str, alias: Alias) -> str | None:
        """Digest of the weights ``alias`` points at."""
        try:
            version = self._client.get_model_version_by_alias(policy, alias)
        except MlflowException:
            return None
        weights: str | None = version.tags.get("tacit.weights")
        return weights

    def run_url(self, policy: str, run_id: str) -> str:
        """Where a person sees the run in the MLflow page."""
        return f"{self.uri}/#/experiments/{self._experiment(policy)}/runs/{run_id}"

    def _experiment(self, policy: str) -> str:
        name = f"tacit/{policy}"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        # The page then opens on runs and metrics rather than on traces.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, tags=tags))


class LiveMetrics:
    """Sends metrics about once a second: a call to the server for every step would slow training.

    A server that does not answer costs metrics, never the update.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, interval_s: float = 1.0) -> None:
        self._client = client
        self._run_id = run_id
        self._interval_s = interval_s
        self._buffer: list[Metric] = []
        self._sent_at = time.monotonic()

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Metrics of one step."""
        now_ms = int(utc_now().timestamp() * 1000)
        self._buffer += [Metric(str(k), float(v), now_ms, step) for k, v in metrics.items()]
        if time.monotonic() - self._sent_at >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        buffer, self._buffer = self._buffer, []
        self._sent_at = time.monotonic()
        try:
            for start in range(0, len(buffer), 1_000):  # MLflow takes 1,000 metrics a call
                self._client.log_batch(self._run_id, metrics=buffer[start : start + 1_000])
        except MlflowException as error:
            logger.warning("MLflow did not take %d live metrics: %s", len(buffer), error)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
