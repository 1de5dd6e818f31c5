"""Variants between parent and trained policy: weights (1 - alpha) * parent + alpha * trained.

Input: the digests of both in the checkpoint store, and alpha. Output: the digest of the variant,
put beside them. It is a function of these three alone, so that it can be made again at any time.

Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903, equation 1): on the line between a policy and what
fine-tuning made of it, much of what was forgotten comes back before what was learned is lost.

What a LoRA adapter adds to a weight is the product BA, so that is what is interpolated; A and B
apart would give (1 - alpha) * alpha * (B1 - B0)(A1 - A0) too little.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tacit.checkpoints import MANIFEST_NAME, CheckpointStore
from tacit.contracts import Digest
from tacit.errors import IntegrityError, TrainingError
from tacit.policies import load_policy

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_TOKENS = ".token_adapter.trainable_tokens_delta"

Tensors = dict[str, Tensor]


def interpolate(store: CheckpointStore, *, parent: Digest, trained: Digest, alpha: float) -> Digest:
    """Put the variant at ``alpha`` into ``store``; 1 is ``trained`` itself.

    Raises TrainingError for an alpha outside (0, 1] or two policies without a common base,
    NotFoundError and IntegrityError for the checkpoints.
    """
    if not 0 < alpha <= 1:
        raise TrainingError("an alpha above 0 and at most 1", got=str(alpha))
    if alpha == 1:
        return trained
    base = store.manifest(trained).base
    folder = Path(tempfile.mkdtemp(prefix="variant-", dir=store.root))
    try:
        for path in store.path(trained).iterdir():
            if path.suffix != ".safetensors" and path.name != MANIFEST_NAME:
                shutil.copyfile(path, folder / path.name)
        with torch.inference_mode(), _one_thread():
            if base is None:
                _write_full(folder, store, parent, trained, alpha)
            else:
                _write_adapter(folder, store, parent, trained, base, alpha)
        return store.put(folder, base=base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums are split by the number of threads, and the digest must not depend on it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_full(
    folder: Path, store: CheckpointStore, parent: Digest, trained: Digest, alpha: float
) -> None:
    before = load_policy(store, parent).model.state_dict()
    for path in sorted(store.path(trained).glob("*.safetensors")):
        after = load_file(path)
        between = {name: _line(before[name], after[name], alpha) for name in after}
        save_file(between, folder / path.name, metadata={"format": "pt"})


def _line(before: Tensor, after: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * before + alpha * after, in float32, back in the precision of ``after``."""
    if not after.is_floating_point():
        return after
    mixed = ((1 - alpha) * before.float() + alpha * after.float()).to(after.dtype)
    # The two products of one weight need not add up to it again.
    return torch.where(before == after, after, mixed).contiguous()


def _write_adapter(
    folder: Path,
    store: CheckpointStore,
    parent: Digest,
    trained: Digest,
    base: Digest,
    alpha: float,
) -> None:
    after = load_file(store.path(trained) / ADAPTER_WEIGHTS)
    if parent == base:
        between = _from_base(after, store.path(base), store.path(trained), alpha)
    else:
        _check_like(store, parent, trained, base)
        between = _from_adapter(load_file(store.path(parent) / ADAPTER_WEIGHTS), after, alpha)
    save_file(between, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _check_like(store: CheckpointStore, parent: Digest, trained: Digest, base: Digest) -> None:
    """A product of factors scaled otherwise is another product."""
    configs = [_config(store.path(digest)) for digest in (parent, trained)]
    if store.manifest(parent).base != base or configs[0] != configs[1]:
        raise TrainingError(
            "parent and trained policy to be adapters of one shape on the same base",
            got=f"{parent} and {trained}",
        )


def _from_base(after: Tensors, base: Path, trained: Path, alpha: float) -> Tensors:
    """The parent has no adapter: its product is zero, its token rows are those of the base."""
    between: Tensors = {}
    for name, tensor in after.items():
        if name.endswith(_TOKENS):
            between[name] = _line(_base_rows(name, base, trained), tensor, alpha)
        else:
            between[name] = tensor * alpha if _is_factor(name, "B") else tensor
    return between


def _from_adapter(before: Tensors, after: Tensors, alpha: float) -> Tensors:
    between: Tensors = {}
    for name, tensor in after.items():
        if _is_factor(name, "A"):
            other = name.replace("_A", "_B")
            products = [(adapter[other], adapter[name]) for adapter in (before, after)]
            between[other], between[name] = nearest_product(*products, alpha=alpha)
        elif not _is_factor(name, "B"):
            between[name] = _line(before[name], tensor, alpha)
    return between


def nearest_product(
    before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], *, alpha: float
) -> tuple[Tensor, Tensor]:
    """Factors (B [d, r], A [r, k]) nearest to (1 - alpha) * B0 @ A0 + alpha * B1 @ A1.

    ``before`` and ``after`` are such pairs. The sum has rank 2r; keeping it would double the rank
    with every cycle. The truncated singular value decomposition is the nearest of rank r in the
    Frobenius norm (Eckart & Young 1936), so it is never further off than interpolated factors.
    """
    rank = after[0].shape[1]
    left = torch.cat([(1 - alpha) * before[0].double(), alpha * after[0].double()], dim=1)
    right = torch.cat([before[1].double(), after[1].double()]).T
    # The product of the two small triangles has the singular values of the whole.
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T)
    root = s[:rank].sqrt()
    factor_b = torch.zeros_like(after[0])
    factor_a = torch.zeros_like(after[1])
    # A matrix thinner than the rank has fewer singular values; the rest stays zero.
    factor_b[:, : len(root)] = ((q_left @ u)[:, : len(root)] * root).to(factor_b)
    factor_a[: len(root)] = ((q_right @ vh.T)[:, : len(root)] * root).T.to(factor_a)
    return factor_b, factor_a


def _is_factor(name: str, letter: str) -> bool:
    return f".lora_{letter}." in name or f".lora_embedding_{letter}" in name


def _config(folder: Path) -> object:
    try:
        return json.loads((folder / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"the configuration of an adapter in {folder}", got=str(error)
        ) from error


def _base_rows(name: str, base: Path, trained: Path) -> Tensor:
    """The base's embeddings of the tokens that were trained, [tokens, hidden size]."""
    module = name.removeprefix(_PREFIX).removesuffix(_TOKENS)
    config = _config(trained)
    assert isinstance(config, dict)
    rows = config["trainable_token_indices"][module.rpartition(".")[2]]
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{module}.weight" in file.keys():  # noqa: SIM118  the file is no mapping
                embeddings: Tensor = file.get_tensor(f"{module}.weight")
                return embeddings[rows]
    raise IntegrityError(f"{module}.weight in the base of the adapter", got="no such tensor")
