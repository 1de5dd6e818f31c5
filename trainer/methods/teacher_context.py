"""What the teacher of TRL's self-distillation reads before each answer: the prompt and a note.

TRL's own contexts want a user to speak last.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import pad

from trainer.hindsight import DEMONSTRATION, SUCCESS, TEMPLATE, with_note
from trainer.methods.prompts import as_messages, tokenized

Chat = list[dict[str, str]]


class TeacherContext:
    """Tokens that the teacher reads."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def inputs(
        self, prompts: Sequence[Chat], notes: Sequence[str], said: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Teacher's ids and mask [N, P + T]: prompts with ``notes``, then the answers [N, T]."""
        tokenizer, room = self._trainer.processing_class, self._trainer.room
        asked = []
        for prompt, note in zip(prompts, notes, strict=True):
            messages = as_messages(prompt)
            read = with_note(messages, note) if note else messages
            asked.append(torch.tensor(tokenized(tokenizer, read, room=room)))
        ids = pad(asked, padding_value=tokenizer.pad_token_id, padding_side="left")
        seen = pad([torch.ones_like(row) for row in asked], padding_value=0, padding_side="left")
        return {
            "teacher_input_ids": torch.cat([ids.to(said.device), said], dim=1),
            "teacher_attention_mask": torch.cat([seen.to(said.device), mask], dim=1),
        }


class Demonstrations(TeacherContext):
    """SDFT's: a demonstration to each prompt."""

    def build(
        self, prompts: Sequence[Chat], contexts: Sequence[str], said: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Called by TRL."""
        notes = [DEMONSTRATION.format(text=text) for text in contexts]
        return self.inputs(prompts, notes, said, mask)


class Hindsight(TeacherContext):
    """SDPO's: the critique, and the first other answer to the prompt that had success."""

    def __init__(self, trainer: Any, *, success: float) -> None:
        super().__init__(trainer)
        self._success = success
        self.last_metrics: dict[str, float] = {}
        """Read by TRL."""

    def build(
        self,
        output: dict[str, Tensor],
        prompts: Sequence[Chat],
        rewards: Tensor,
        feedbacks: Sequence[str | None],
    ) -> dict[str, Tensor]:
        """Called by TRL; answers without critique or success have ``self_distillation_mask`` 0."""
        said, mask = output["completion_ids"], output["completion_mask"]
        successes = [self._another(index, rewards, said) for index in range(len(prompts))]
        notes = [_note(*each) for each in zip(successes, feedbacks, strict=True)]
        taught = torch.tensor([float(bool(note)) for note in notes], device=said.device)
        self.last_metrics = {
            "self_distillation/reprompt_sample_fraction": float(taught.mean()),
            "self_distillation/success_group_fraction": float((rewards >= self._success).any()),
        }
        return {**self.inputs(prompts, notes, said, mask), "self_distillation_mask": taught}

    def _another(self, index: int, rewards: Tensor, said: Tensor) -> str | None:
        size = self._trainer.num_generations
        start = index - index % size
        for other in range(start, start + size):
            if other != index and float(rewards[other]) >= self._success:
                tokenizer = self._trainer.processing_class
                text: str = tokenizer.decode(said[other], skip_special_tokens=True)
                return text
        return None


def _note(success: str | None, critique: str | None) -> str:
    parts = [SUCCESS.format(text=success)] if success else []
    parts += [TEMPLATE.format(critique=critique.strip())] if critique else []
    return "\n\n".join(parts)
