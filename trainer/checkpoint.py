"""Opening the parent policy for training, and writing what came out as a checkpoint.

An adapter checkpoint sits on its full base. Training from it goes on with that same adapter, so one
adapter accumulates over cycles. What is written holds no paths, times or other traces of the
machine: the same weights always have the same digest.
"""

import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from tacit.checkpoints import MANIFEST_NAME, CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.policies import load_model, load_policy, load_tokenizer

logger = logging.getLogger(__name__)


class OpenPolicy:
    """The parent policy with some of its weights trainable."""

    def __init__(self, *, model: Any, tokenizer: Any, base: Digest | None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.base = base
        """The full checkpoint under the adapter; None when all weights are trained."""

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Trainable parameters in a fixed order."""
        return [p for _, p in self.model.named_parameters() if p.requires_grad]

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite trainable parameters, each by its name, with ``weights``."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])


class PolicyOpener:
    """Opens parents one after another and keeps the base they share in memory."""

    def __init__(self, store: CheckpointStore, *, device: str) -> None:
        self._store = store
        self._device = device
        self._base: tuple[Digest, Any, Any] | None = None

    def open(self, parent: Digest, settings: TrainerSettings) -> OpenPolicy:
        """The parent, ready to be trained as ``settings`` say.

        Raises NotFoundError, IntegrityError.
        """
        if settings.full_fine_tuning:
            return self._open_full(parent)
        manifest = self._store.manifest(parent)
        base = manifest.base or parent
        model, tokenizer = self._warm(base)
        if manifest.base is None:
            # Every worker must draw the same first adapter.
            torch.manual_seed(settings.seed)
            adapted = get_peft_model(model, _lora_config(settings, model))
        else:
            path = self._store.path(parent)
            adapted = PeftModel.from_pretrained(model, path, is_trainable=True)
        # Dropout would make the policy differ from its own reference before the first step.
        return OpenPolicy(model=adapted.eval(), tokenizer=tokenizer, base=base)

    def close(self, policy: OpenPolicy) -> None:
        """Take the adapter off again, which leaves the base as it was."""
        if policy.base is not None:
            policy.model.unload()

    def forget(self) -> None:
        """Drop the warm base, after a failure that may have left something on it."""
        self._base = None

    def _open_full(self, parent: Digest) -> OpenPolicy:
        policy = load_policy(self._store, parent, device=self._device)
        # AdamW's small steps vanish in bfloat16; the checkpoint goes back to its own precision.
        model = policy.model.float().requires_grad_(True)
        return OpenPolicy(model=model, tokenizer=policy.tokenizer, base=None)

    def _warm(self, base: Digest) -> tuple[Any, Any]:
        if self._base is None or self._base[0] != base:
            self._base = None  # frees the old base before the new one is loaded
            model = load_model(self._store, base).to(self._device).eval()
            self._base = (base, model, load_tokenizer(self._store, base))
            logger.info("loaded base %s", base)
        return self._base[1], self._base[2]


def save_policy(store: CheckpointStore, policy: OpenPolicy, *, parent: Digest) -> Digest:
    """Put the trained policy into ``store`` and return its digest."""
    folder = Path(tempfile.mkdtemp(prefix="training-", dir=store.root))
    try:
        if policy.base is not None:
            _write_adapter(folder, policy.model)
        else:
            _write_full(folder, policy, store, parent)
        return store.put(folder, base=policy.base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_adapter(folder: Path, model: Any) -> None:
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = None  # PEFT puts the path on this machine here
    config.revision = None
    tree = json.dumps(config.to_dict(), default=_plain, sort_keys=True, indent=2)
    (folder / "adapter_config.json").write_text(tree + "\n")


def _write_full(folder: Path, policy: OpenPolicy, store: CheckpointStore, parent: Digest) -> None:
    source = store.path(store.manifest(parent).base or parent)
    for path in source.iterdir():
        # Weights are written anew; tokenizer and template go along as they are.
        if path.suffix != ".safetensors" and path.name not in _REWRITTEN:
            shutil.copyfile(path, folder / path.name)
    stored = copy.deepcopy(policy.model).to(policy.model.config.dtype or torch.float32)
    stored.config._name_or_path = ""
    stored.save_pretrained(folder)


_REWRITTEN = {MANIFEST_NAME, "config.json", "model.safetensors.index.json"}


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def _lora_config(settings: TrainerSettings, model: Any) -> LoraConfig:
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    rows = {name.rpartition(".")[2]: list(range(embeddings.num_embeddings))}
    return LoraConfig(
        trainable_token_indices=rows if settings.lora.train_embeddings else None,
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        target_modules=settings.lora.target_modules,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
