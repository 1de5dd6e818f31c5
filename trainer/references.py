"""What the parent said about each micro-batch, kept until every epoch has read it.

Hidden states at the tokens of replay, critiques and probes grow with the batch, and so would a
worker's memory. What is more than a little lies in a temporary file, which the system deletes
however the process ends; TMPDIR says where.
"""

import tempfile
import weakref
from dataclasses import fields
from typing import NamedTuple

import torch
from safetensors.torch import load, save

from trainer.objective import Reference

MAX_MEMORY_BYTES = 16 * 2**20


class _Span(NamedTuple):
    start: int
    size_bytes: int


class References:
    """A list of references; to read one costs about a copy of it."""

    def __init__(self, device: torch.device, *, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        """``device``: where references are read to. Beyond ``max_memory_bytes`` all is on disk."""
        self._device = device
        self._file = tempfile.SpooledTemporaryFile(max_size=max_memory_bytes)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._spans: list[_Span] = []

    def append(self, reference: Reference) -> None:
        """Keep ``reference`` as the next one."""
        named = {field.name: getattr(reference, field.name) for field in fields(reference)}
        data = save(
            {name: value.contiguous() for name, value in named.items() if value is not None}
        )
        self._spans.append(_Span(self._file.seek(0, 2), len(data)))
        self._file.write(data)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Reference:
        """The reference that was appended as number ``index``, bit for bit."""
        span = self._spans[index]
        self._file.seek(span.start)
        found = load(self._file.read(span.size_bytes))
        # Copied, for kernels may sum in another order where memory is aligned otherwise.
        tensors = {name: value.clone().to(self._device) for name, value in found.items()}
        return Reference(**{"mismatched": None, **tensors})
