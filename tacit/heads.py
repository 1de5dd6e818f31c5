"""Signed heads of the ledger kept in MLflow, out of reach of whoever owns the database.

In: the DSSE envelope over a head. Out: a run of the experiment ``tacit/ledger`` for each, and all
of them back for ``tacit audit verify``. A ledger that was cut, or restored from an older copy,
lacks an entry that a head here vouches for.
"""

import json
import logging
import time
from base64 import b64decode
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)

EXPERIMENT = "tacit/ledger"
_HEAD, _SEQUENCE, _ROOT = "tacit.ledger.head", "tacit.ledger.sequence", "tacit.ledger.root"
_RUNS_A_PAGE = 1_000


class HeadStore:
    """The heads in one MLflow server or store."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)

    def add(self, envelope: str) -> None:
        """Keep a signed head; the same one again changes nothing."""
        head = json.loads(b64decode(json.loads(envelope)["payload"]))
        sequence, root = str(head["sequence"]), head["root"]
        experiment_id = self._experiment() or str(self._client.create_experiment(EXPERIMENT))
        same = f"tags.`{_SEQUENCE}` = '{sequence}' AND tags.`{_ROOT}` = '{root}'"
        if self._client.search_runs([experiment_id], same, max_results=1):
            return
        tags = {_HEAD: envelope, _SEQUENCE: sequence, _ROOT: root}
        run = self._client.create_run(experiment_id, run_name=f"entry {sequence}", tags=tags)
        self._client.set_terminated(run.info.run_id)

    def all(self) -> list[str]:
        """Every envelope kept, in no order. Raises MlflowException while MLflow is away."""
        experiment_id = self._experiment()
        envelopes: list[str] = []
        token: str | None = None
        while experiment_id is not None:
            page = self._client.search_runs(
                [experiment_id], max_results=_RUNS_A_PAGE, page_token=token
            )
            envelopes += [run.data.tags.get(_HEAD, "") for run in page]
            token = page.token
            if not token:
                break
        return envelopes

    def _experiment(self) -> str | None:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        return None if experiment is None else str(experiment.experiment_id)


class HeadKeeper:
    """Takes the ledger's head to MLflow when it moved, at most every ``interval_s``."""

    def __init__(
        self, store: HeadStore, head: Callable[[], str | None], *, interval_s: float = 30.0
    ) -> None:
        """``head`` gives the envelope over the ledger's last head."""
        self._store = store
        self._head = head
        self._interval_s = interval_s
        self._kept: str | None = None
        self._looked_at: float | None = None

    def follow(self, *, now: bool = False) -> None:
        """Keep the head if it is time, or ``now``; while MLflow is away it is put off."""
        early = self._looked_at is not None and (
            time.monotonic() - self._looked_at < self._interval_s
        )
        if early and not now:
            return
        self._looked_at = time.monotonic()
        head = self._head()
        if head is None or head == self._kept:
            return
        try:
            self._store.add(head)
        except MlflowException as error:
            logger.warning("the head of the ledger is not in MLflow yet: %s", error)
            return
        self._kept = head
