"""Learning without forgetting: a frozen teacher on new prompts.

Input: the digest of the teacher. Output: its divergence from the policy on a micro-batch. The
teacher reads each micro-batch again in every epoch, which takes a forward pass and no memory that
grows with the batch; what it said once would have to be kept for every token.
"""

import torch
from torch import Tensor

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from tacit.errors import ConfigError
from tacit.policies import load_policy
from trainer.checkpoint import OpenPolicy
from trainer.losses import distillation_loss
from trainer.new_prompts import new_answers
from trainer.packing import MicroBatch
from trainer.scoring import CompletionScorer


class Teacher:
    """A frozen policy beside the one that is trained, in memory of its own."""

    def __init__(self, scorer: CompletionScorer, *, temperature: float) -> None:
        self._scorer = scorer
        self._temperature = temperature

    @property
    def shares_prompts(self) -> bool:
        """Whether it can read several completions behind one prompt."""
        return self._scorer.shares_prompts

    def losses(self, batch: MicroBatch, table: Tensor) -> Tensor:
        """[X] mean over the tokens of each new answer, from the policy's log-probabilities [M, V].

        In the order of ``new_answers``.
        """
        sequences, rows = batch.sequences, new_answers(batch).rows
        is_new = torch.zeros_like(sequences.lengths, dtype=torch.bool).index_fill(0, rows, True)
        tokens = is_new.repeat_interleave(sequences.lengths).nonzero().squeeze(-1)
        with torch.no_grad():
            taught = self._scorer.logprobs(self._scorer.hidden(sequences)[tokens])
        losses = distillation_loss(table[tokens], taught, temperature=self._temperature)
        return sequences.per_sequence_of(tokens, losses)[rows] / sequences.lengths[rows]


def load_teacher(
    store: CheckpointStore, digest: Digest, policy: OpenPolicy, *, temperature: float
) -> Teacher:
    """The checkpoint ``digest`` as the teacher of ``policy``, on the same device.

    Raises ConfigError when it has another vocabulary, NotFoundError, IntegrityError.
    """
    scorer = load_frozen(store, digest, policy, setting="trainer.distillation.teacher")
    return Teacher(scorer, temperature=temperature)


def load_frozen(
    store: CheckpointStore, digest: Digest, policy: OpenPolicy, *, setting: str, bf16: bool = False
) -> CompletionScorer:
    """The checkpoint ``digest``, named by ``setting``, to be asked what ``policy`` is asked.

    Raises ConfigError when it has another vocabulary, NotFoundError, IntegrityError.
    """
    loaded = load_policy(store, digest, device=str(policy.model.device))
    if loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"{setting} with the vocabulary of the policy",
            got=f"{digest}, which has another one",
            mend="Take a checkpoint of the same model family, or the parent.",
        )
    return CompletionScorer(loaded.model.requires_grad_(False), bf16=bf16)
