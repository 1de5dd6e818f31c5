"""Can the reward function be imported, and does the first policy's folder look like one?"""

import sys
from collections.abc import Iterator
from pathlib import Path

from tacit.config import Settings
from tacit.doctor.findings import Finding, fail, ok, warn

_REWARD, _MODEL = "reward", "model"


def check_reward(settings: Settings) -> Iterator[Finding]:
    """``trainer.reward.function``, as a worker on this machine would import it."""
    path = settings.trainer.reward.function
    if path is None:
        return
    # Not above: it brings torch.
    from trainer.methods.reward import load_function

    if "" not in sys.path:
        sys.path.append("")  # workers run in the folder of the service
    load_function(path)
    yield ok(_REWARD, f"{path} can be imported")


def check_model(settings: Settings) -> Iterator[Finding]:
    """``model``, where it is a folder."""
    model = settings.model
    if model is None:
        yield ok(_MODEL, "the small policy of the demo")
    elif Path(model).is_dir():
        if (Path(model) / "config.json").is_file():
            yield ok(_MODEL, f"{model} has a config.json")
        else:
            yield fail(
                _MODEL, f"no config.json in {model}", "Name a folder that transformers can load."
            )
    elif model.startswith((".", "/", "~")):
        yield fail(_MODEL, f"{model} is no folder", "Check the path, or give a hub id.")
    else:
        yield warn(_MODEL, f"{model} is a hub id, and the hub is not asked", "It is loaded once.")
