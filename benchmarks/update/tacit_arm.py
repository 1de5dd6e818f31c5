"""Tacit's arm: the optimization of an update, reference log-probabilities and packing included."""

from benchmarks.update.arms import ArmSpec, Round, Stopwatch
from benchmarks.update.data import build_policy, corpus, num_useful_tokens, settings
from tacit.metrics import MetricName
from trainer.collective import Collective
from trainer.optimize import Optimization
from trainer.session import configure_process


class TacitArm:
    """Trains the same policy from the start every round."""

    def __init__(self, spec: ArmSpec) -> None:
        configure_process(num_threads=1, device=spec.device)
        self._spec = spec
        self._corpus = corpus(spec.num_examples)
        self._settings = settings(
            term=spec.term,
            lora=spec.lora,
            num_epochs=spec.num_epochs,
            precision="auto" if spec.bf16 else "fp32",
        )

    def round(self, num_examples: int) -> Round:
        """All epochs of an update on the first ``num_examples``."""
        spec, found = self._spec, self._corpus
        examples = (found.pairs if spec.term == "dpo" else found.judged)[:num_examples]
        policy = build_policy(found.tokenizer, self._settings, shape=spec.shape, device=spec.device)
        watch = Stopwatch(spec.device)
        run = Optimization(policy, examples, settings=self._settings, group=Collective()).run()
        losses = [step.metrics[MetricName.LOSS.value] for step in run]
        cpu_s, wall_s = watch.read()
        num_tokens = num_useful_tokens(examples) * spec.num_epochs
        return Round(num_tokens, cpu_s, wall_s, losses)
