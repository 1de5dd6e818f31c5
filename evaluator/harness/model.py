"""A policy as the language model of lm-evaluation-harness."""

import json

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from evaluator.questions import TextModel
from tacit.errors import EvaluationError

DEFAULT_NEW_TOKENS = 256
"""Length limit of tasks that set none, as in the harness."""


class HarnessModel(LM):  # type: ignore[misc]
    """Answers the harness's requests with a policy, greedily."""

    def __init__(self, texts: TextModel, *, batch_size: int) -> None:
        super().__init__()
        self._texts = texts
        self._batch_size = batch_size

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Completions. Raises EvaluationError for a task that samples."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            options = normalize_gen_kwargs(request.args[1], DEFAULT_NEW_TOKENS)
            if options["do_sample"]:
                raise EvaluationError(
                    "a task that generates greedily", got=f"do_sample in {request.task_name}"
                )
            wanted = [options.get("until") or [], options["max_gen_toks"]]
            groups.setdefault(json.dumps(wanted), []).append(index)
        found: dict[int, str] = {}
        for key, indices in groups.items():
            until, limit = json.loads(key)
            texts = self._texts.complete(
                [requests[i].args[0] for i in indices],
                until=[until] if isinstance(until, str) else until,
                max_new_tokens=limit,
                batch_size=self._batch_size,
            )
            found.update(zip(indices, texts, strict=True))
        return [found[i] for i in range(len(requests))]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it."""
        pairs = [request.args for request in requests]
        scored = self._texts.score_pairs(pairs, batch_size=self._batch_size)
        return [(found.logprob, found.is_greedy) for found in scored]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts."""
        texts = [request.args[0] for request in requests]
        found = self._texts.score_texts(texts, batch_size=self._batch_size)
        return found

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, by the policy's own template."""
        return self._texts.chat_text(chat_history, ask=add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """Nothing is cached by the harness, so one name does for all."""
        return "policy"
