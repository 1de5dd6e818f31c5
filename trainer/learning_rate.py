"""How fast an update learns, step by step."""

import math

from tacit.config import TrainerSettings


def learning_rate(step: int, *, num_steps: int, settings: TrainerSettings) -> float:
    """Rate of ``step`` (1 to ``num_steps``): a linear rise to the peak, then a cosine towards 0."""
    warmup = round(settings.warmup_share * num_steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup - 1) / max(1, num_steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
