"""Running one of TRL's trainers so that its steps can be streamed."""

import math
import queue
import threading
from collections.abc import Iterator
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from tacit.errors import TrainingError
from tacit.metrics import MetricName
from trainer.progress import StepMetrics

_NAMES = {
    "loss": MetricName.LOSS,
    "grad_norm": MetricName.GRAD_NORM,
    "learning_rate": MetricName.LEARNING_RATE,
    "rewards/margins": MetricName.REWARD_MARGIN,
    "reward": MetricName.REWARD,
    "reward_std": MetricName.REWARD_STD,
    "self_distillation/reward_mean": MetricName.REWARD,
    "self_distillation/reward_std": MetricName.REWARD_STD,
    "kl": MetricName.KL_REFERENCE,
    "entropy": MetricName.ENTROPY,
    "completions/mean_length": MetricName.COMPLETION_TOKENS,
    "self_distillation/reprompt_sample_fraction": MetricName.TAUGHT_SHARE,
    MetricName.KEPT_SHARE.value: MetricName.KEPT_SHARE,
    MetricName.HINTED_SHARE.value: MetricName.HINTED_SHARE,
}
"""TRL's names of what Tacit logs; TRL's margin holds the factor beta already."""


def stream(trainer: Any) -> Iterator[StepMetrics]:
    """Train in a thread of its own and yield each step.

    Raises what training raises, and TrainingError when a metric is not finite.
    """
    steps: queue.Queue[StepMetrics | BaseException | None] = queue.Queue()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_StepReporter(steps))

    def work() -> None:
        try:
            trainer.train()
            steps.put(None)
        except BaseException as error:  # handed to the caller's thread, which raises it
            steps.put(error)

    thread = threading.Thread(target=work, name="trl", daemon=True)
    thread.start()
    while (item := steps.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
    thread.join()


class NeedsSignal(TrainerCallback):  # type: ignore[misc]
    """Raises ``otherwise`` at the end of an update in which ``name`` was ``silent`` at every step.

    ``name`` is TRL's. Such an update would end in the parent's weights.
    """

    def __init__(self, name: str, *, silent: float, otherwise: TrainingError) -> None:
        self._name = name
        self._silent = silent
        self._otherwise = otherwise
        self._heard = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        value = (logs or {}).get(self._name)
        self._heard |= value is not None and value != self._silent

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._heard:
            raise self._otherwise


class _StepReporter(TrainerCallback):  # type: ignore[misc]
    def __init__(self, steps: "queue.Queue[Any]") -> None:
        self._steps = steps

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        # A mean over nothing is None: no completion of the step had a reward.
        found = {_NAMES[name].value: logs[name] for name in _NAMES if logs.get(name) is not None}
        metrics = {name: float(value) for name, value in found.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"a finite {name} at step {state.global_step}",
                    got=str(value),
                    mend="Lower trainer.learning_rate; no checkpoint was written.",
                )
        self._steps.put(StepMetrics(state.global_step, state.max_steps, metrics))
