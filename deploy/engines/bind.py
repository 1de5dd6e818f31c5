"""Binding a request to a policy: its prompt as tokens, and how long its completion may get."""

from deploy.engines.base import ContextLengthError, GenerationRequest
from deploy.engines.row import Row
from tacit.policies import Policy


def bind(request: GenerationRequest, policy: Policy, *, context: int | None) -> Row:
    """The row of ``request``, whose prompt and completion fit into ``context`` tokens.

    Raises ContextLengthError if they do not and may not be shortened.
    """
    prompt_ids = _prompt_ids(request, policy)
    max_tokens = request.sampling.max_tokens
    if context is not None and len(prompt_ids) + max_tokens > context:
        if not request.fit_context or len(prompt_ids) >= context:
            raise ContextLengthError(
                f"prompt and completion of at most {context} tokens together",
                got=f"{len(prompt_ids)} of the prompt and {max_tokens} of the completion",
                mend="Shorten the messages or max_tokens.",
            )
        max_tokens = context - len(prompt_ids)
    return Row(request, policy, prompt_ids=prompt_ids, max_tokens=max_tokens)


def _prompt_ids(request: GenerationRequest, policy: Policy) -> list[int]:
    if not isinstance(request.prompt, str):
        return policy.prompt_ids(request.prompt)
    ids: list[int] = policy.tokenizer(request.prompt)["input_ids"]
    # A model needs something to go on from.
    return ids or [policy.tokenizer.eos_token_id]
