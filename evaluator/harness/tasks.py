"""Tasks of lm-evaluation-harness, loaded and run.

Input: names of tasks, where to find them, a policy over plain texts. Output: for every document its
answer with the score that the task gives it, and for every task what the harness says of it.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, hash_string

from evaluator.harness.model import HarnessModel
from evaluator.questions import Answer, TextModel
from tacit.contracts import Digest, HarnessTask, canonical_json, sha256_digest
from tacit.errors import ConfigError, EvaluationError

FEWSHOT_SEED = 1234
"""The harness's own default."""
BOOTSTRAP_ITERATIONS = 100
"""Of standard errors that have no formula, as in the harness for slow metrics."""


@dataclass(frozen=True)
class HarnessSpec:
    """What a suite file says of the tasks it runs."""

    tasks: tuple[str, ...]
    include_path: Path | None = None
    """Folder of task definitions of one's own; they come before those of the harness."""
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    metric: str | None = None
    """Metric that is an item's score, ``acc`` or ``exact_match,strict-match``; by default the
    first of each task that is better the higher."""


class Document(NamedTuple):
    """One question of a task."""

    item_id: str
    prompt: str
    expected: str


class Harness:
    """Loaded tasks."""

    def __init__(self, spec: HarnessSpec) -> None:
        """Load. Raises ConfigError for tasks that do not exist, have no documents, or whose
        metric is not a score."""
        self.spec = spec
        self._loaded = _load(spec)
        self._tasks: dict[str, Any] = self._loaded["tasks"]
        for name, task in self._tasks.items():
            if task.get_config("num_fewshot") is None or (
                spec.num_fewshot is not None and task.get_config("num_fewshot") != 0
            ):
                task.set_config(key="num_fewshot", value=spec.num_fewshot or 0)
            self._metric(name)
        self.documents = list(self._documents())
        self.digest = self._digest()

    def _documents(self) -> Iterator[Document]:
        for name, task in self._tasks.items():
            docs = list(task.eval_docs)
            if not docs:
                raise ConfigError(f"documents in task {name}", got="none")
            for number, doc in enumerate(docs):
                yield Document(f"{name}/{number}", str(task.doc_to_text(doc)), _target(task, doc))

    def _digest(self) -> Digest:
        configs = {
            name: {"config": task.dump_config(), "version": str(task.VERSION)}
            for name, task in self._tasks.items()
        }
        tree = {
            "lm_eval": lm_eval.__version__,
            "tasks": configs,
            "documents": [list(document) for document in self.documents],
            "apply_chat_template": self.spec.apply_chat_template,
            "metric": self.spec.metric,
        }
        text = json.dumps(tree, default=handle_non_serializable, sort_keys=True)
        return sha256_digest(canonical_json(text))

    def _metric(self, name: str) -> tuple[str, str | None]:
        """Metric and filter of a task's scores; no filter is its first."""
        better: dict[str, bool] = self._tasks[name].higher_is_better()
        asked = self.spec.metric
        if asked is None:
            rising = [metric for metric, higher in better.items() if higher]
            if not rising:
                raise ConfigError(f"a metric of task {name} that should rise", got=str(better))
            return rising[0], None
        metric, _, chosen = asked.partition(",")
        if not better.get(metric):
            raise ConfigError(
                f"metric: one of task {name} that should rise", got=f"{metric} of {better}"
            )
        return metric, chosen or None

    def run(
        self, texts: TextModel, *, batch_size: int
    ) -> tuple[dict[str, Answer], list[HarnessTask]]:
        """Answers by item id, and a summary a task.

        Raises EvaluationError for a score that is none.
        """
        for task in self._tasks.values():
            task.set_fewshot_seed(FEWSHOT_SEED)  # every policy gets the same examples
        found = evaluate(
            HarnessModel(texts, batch_size=batch_size),
            task_dict=self._loaded,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=True,
            apply_chat_template=self.spec.apply_chat_template,
        )
        answers: dict[str, Answer] = {}
        summaries = []
        for name in self._tasks:
            metric, chosen = self._metric(name)
            samples = found["samples"][name]
            chosen = chosen or samples[0]["filter"]
            samples = [sample for sample in samples if sample["filter"] == chosen]
            if not samples:
                raise ConfigError(f"metric: a filter of task {name}", got=chosen)
            for sample in samples:
                item_id = f"{name}/{sample['doc_id']}"
                answers[item_id] = Answer(
                    _said(sample), "stop", score=_score(item_id, sample, metric)
                )
            summaries.append(_summary(name, found, samples, metric, chosen))
        return answers, summaries


def _load(spec: HarnessSpec) -> Any:
    # Indexing the thousands of tasks the harness ships takes seconds; often none is wanted.
    own = None if spec.include_path is None else str(spec.include_path)
    names = list(spec.tasks)
    os.environ.setdefault("TQDM_DISABLE", "1")  # its bars would tear those of the terminal
    try:
        if own is not None:
            manager = TaskManager(include_path=own, include_defaults=False)
            if all(name in manager.all_tasks for name in names):
                return manager.load(names)
        return TaskManager(include_path=own).load(names)
    except (KeyError, ValueError, FileNotFoundError) as error:
        raise ConfigError(
            "tasks of lm-evaluation-harness",
            got=f"{', '.join(names)}: {type(error).__name__}: {error}",
            mend="`lm_eval ls tasks` lists them; include_path adds a folder of your own.",
        ) from error


def _target(task: Any, doc: Any) -> str:
    target = task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        return str(task.doc_to_choice(doc)[target])
    return str(target)


def _said(sample: Any) -> str:
    """The answer for a person: the text, or which of several continuations was most probable."""
    answers = sample["filtered_resps"]
    if isinstance(answers[0], str):
        return str(answers[0])
    if len(answers) > 1:
        best = max(range(len(answers)), key=lambda i: answers[i][0])
        return str(sample["arguments"][best][1]).strip()
    return str(answers[0])


def _score(item_id: str, sample: Any, metric: str) -> float:
    value = sample[metric]
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise EvaluationError(
            f"metric {metric} of {item_id} to be a score from 0 to 1", got=repr(value)
        )
    return float(value)


def _summary(name: str, found: Any, samples: list[Any], metric: str, chosen: str) -> HarnessTask:
    row = found["results"][name]
    stderr = row.get(f"{metric}_stderr,{chosen}")
    hashed = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
    return HarnessTask(
        task=name,
        version=str(found["versions"].get(name)),
        task_hash=hash_string(hashed),
        metric=f"{metric},{chosen}",
        value=float(row[f"{metric},{chosen}"]),
        stderr=float(stderr) if isinstance(stderr, int | float) else None,
    )
