"""Reward models by their digest, so that the record of an update says which bytes judged."""

from pathlib import Path

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.errors import ConfigError

_DIGEST = "sha256:"


def pinned(settings: TrainerSettings, store: CheckpointStore) -> TrainerSettings:
    """``settings`` with the folder of a reward model replaced by the digest of a copy in ``store``.

    Raises ConfigError when there is no model.
    """
    named = settings.reward.model
    if named is None or named.startswith(_DIGEST):
        return settings
    folder = Path(named)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            "trainer.reward.model to be a digest or the folder of a sequence-classification model",
            got=f"{named}, which has no config.json",
        )
    reward = settings.reward.model_copy(update={"model": store.put(folder)})
    return settings.model_copy(update={"reward": reward})


def pinned_models(settings: TrainerSettings) -> list[Digest]:
    """Digests of the models, beside the parent, that an update with ``settings`` reads."""
    named = settings.reward.model
    return [named] if named is not None and named.startswith(_DIGEST) else []
