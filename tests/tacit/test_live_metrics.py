"""Everything an update measures arrives in MLflow while the update goes on."""

import itertools
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from tacit.contracts import Correction, Critique, SamplingParameters
from tacit.metrics import MetricName
from tacit.policies import completion_ids, load_tokenizer
from tacit.tracking import Tracking
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, settings
from trainer.progress import StepMetrics
from trainer.session import TrainingSession, UpdateJob

pytestmark = pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning", "ignore::FutureWarning"
)

TERMS = {"dpo", "nll", "kto", "topr", "critique", "replay", "ewc", "distillation"}
KINDS = {"pair", "chosen", "desirable", "undesirable", "criticised", "replay"}
LIVE = {
    *(f"train/loss_{term}" for term in TERMS),
    *(f"train/examples_{kind}" for kind in KINDS),
    MetricName.LOSS,
    MetricName.KL_REPLAY,
    MetricName.KL_NEW,
    MetricName.REWARD_MARGIN,
    MetricName.TOPR_TAPER,
    MetricName.GRAD_NORM,
    MetricName.LEARNING_RATE,
    MetricName.TOKENS,
    MetricName.TOKENS_PER_SECOND,
    MetricName.REPLAY_SHARE,
}
"""What the mixed objective measures of a step that has everything."""


def every_kind(store, parent):
    """An event of each kind of example, a served answer with its logprobs among them."""
    ids = tuple(completion_ids(load_tokenizer(store, parent), "billing"))
    fields = {
        "completion_ids": ids,
        "logprobs": (-1.0,) * len(ids),
        "sampling": SamplingParameters(temperature=1.0),
    }
    served = mixed_events(2)[1]
    return [
        *mixed_events(6),
        build.screened("critique", feedback=Critique(text="too curt")),
        build.screened("same", completion="shipping", feedback=Correction(completion="shipping")),
        served.model_copy(
            update={
                "event_key": "helpdesk/served",
                "interaction": served.interaction.model_copy(update=fields),
            }
        ),
    ]


def test_all_metrics_of_a_step_are_in_the_run_before_the_next(
    store, mlflow_uri, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look at the clock finds it a second later, so that every step is sent at once.
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("tacit.tracking.time", clock)
    tracking, client = Tracking(mlflow_uri), MlflowClient(mlflow_uri)
    run_id = tracking.start_cycle("default", "default-1")
    parent = build.tiny_checkpoint(store)
    chosen = settings(batch_size=16, ewc={"weight": 1.0}, distillation={"weight": 1.0})
    job = UpdateJob(parent, tuple(every_kind(store, parent)), tuple(replay_examples(3)), chosen)
    seen = []
    with tracking.live(run_id) as live:
        for item in TrainingSession(store).run(job):
            if isinstance(item, StepMetrics):
                live.log(item.metrics, step=item.step)
                seen.append(client.get_run(run_id).data.metrics)
                assert seen[-1] == item.metrics
    assert len(seen) == 2
    assert set(seen[0]) == LIVE
    first, last = seen
    assert first[MetricName.KL_NEW] == pytest.approx(0, abs=1e-6)
    assert last[MetricName.KL_NEW] > 1e-6
    assert first[MetricName.REPLAY_SHARE] == 3 / 12
    kinds = {name: value for name, value in first.items() if "/examples_" in name}
    assert sum(kinds.values()) == 12
    assert kinds == {
        MetricName.EXAMPLES_PAIR: 2,
        MetricName.EXAMPLES_CHOSEN: 2,
        MetricName.EXAMPLES_DESIRABLE: 2,
        MetricName.EXAMPLES_UNDESIRABLE: 2,
        MetricName.EXAMPLES_CRITICISED: 1,
        MetricName.EXAMPLES_REPLAY: 3,
    }
    history = client.get_metric_history(run_id, MetricName.KL_NEW)
    assert [metric.step for metric in history] == [1, 2]
