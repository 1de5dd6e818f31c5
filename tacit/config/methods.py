"""Settings of the methods that sample from the policy while they train."""

from typing import Annotated

from pydantic import Field, StringConstraints

from tacit.config.base import Count, Positive, Section

SAMPLING = ("grpo", "rloo", "sdft", "sdpo", "star")
"""Methods whose policy answers while it is trained."""


class SamplingSettings(Section):
    """Answers that grpo, rloo, sdft, sdpo and star sample from the policy while they train."""

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Answers to a prompt that grpo, rloo and sdpo compare with each other; sdft samples one."""
    max_new_tokens: Count = 64
    temperature: Positive = 1.0
    """star does not sample but takes the likeliest tokens."""
    kl_beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the KL penalty to the parent: in the loss of grpo, in the reward of rloo."""


class RewardSettings(Section):
    """How good a sampled answer is: a function, a model, or both added up."""

    function: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None
    ) = None
    """``package.module:function`` with the signature of TRL's custom reward functions;
    ``trainer.methods.reward:matches_known_answer`` is 1 for the right answer, 0 for another."""
    model: str | None = None
    """Folder of a sequence-classification model, or its digest in the checkpoint store."""
    success: float = 1.0
    """Answers with this reward or more are shown to the teacher of sdpo as a success."""


class StarSettings(Section):
    """Self-generated rationales (Zelikman et al. 2022, arXiv 2203.14465)."""

    answer_after: Annotated[str, StringConstraints(min_length=1)] = "Answer:"
    """What stands before it is the rationale, what stands behind its last occurrence the answer."""
    instruction: str = "Think step by step, then write the answer after 'Answer:'."
    """Put behind the prompt while rationales are generated, not when they are trained on."""
    hint: str = "The answer is {answer}. Say why."
    """Put behind that where the policy was wrong: the paper's rationalization. Empty leaves it out.
    """
