"""Whether a batch can teach anything under the settings: replay alone is not worth an update."""

from collections.abc import Sequence

from tacit.config import TrainerSettings
from tacit.errors import TrainingError
from trainer.examples import Example, ExampleKind


def require_signal(examples: Sequence[Example], settings: TrainerSettings) -> None:
    """Raise TrainingError where ``settings`` switch off every term that feedback would feed."""
    by_kind = {
        ExampleKind.PAIR: settings.dpo_weight + settings.nll_weight,
        ExampleKind.CHOSEN: settings.nll_weight,
        ExampleKind.CRITICISED: settings.critique_weight,
        ExampleKind.REPLAY: 0.0,
    }
    judged = {True: settings.topr_weight, False: settings.kto_weight}
    if any(by_kind.get(e.kind, judged[e.behaviour is not None]) > 0 for e in examples):
        return
    kinds = sorted({e.kind.value for e in examples if e.kind is not ExampleKind.REPLAY})
    raise TrainingError(
        "feedback that a term of the objective with a weight above 0 learns from",
        got=f"only examples that are {', '.join(kinds)}",
        mend="Raise trainer.dpo_weight, nll_weight, kto_weight, topr_weight or critique_weight.",
    )
