"""Suites that lm-evaluation-harness asks and scores.

``reasoning.yaml``::

    name: reasoning
    kind: capability             # capability, regression, safety, privacy or holdout
    type: lm_eval
    tasks: [arc_easy, our_task]
    include_path: tasks          # folder beside this file with tasks of your own
    num_fewshot: 0               # these four are optional, as is include_path
    apply_chat_template: true
    metric: acc                  # what an item's score is; by default a task's first metric

A document of a task is an item of the suite, so scores are compared pair by pair like any other.
The harness builds prompts and scores answers of a task's documents together, so the first item that
is asked for asks them all; what they answered is cached.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from evaluator.answer_cache import AnswerCache
from evaluator.questions import Answer, Generator
from tacit.contracts import (
    CheckerSpec,
    Digest,
    HarnessTask,
    Message,
    Part,
    Suite,
    SuiteItem,
    SuiteKind,
    canonical_json,
    sha256_digest,
)
from tacit.contracts.base import Name
from tacit.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from evaluator.harness.tasks import Harness

TYPE = "lm_eval"
"""Of the suite file, and of the checker of the suites."""

_SUMMARY = "summary"
_loaded: dict[Digest, "Harness"] = {}
"""By the digest that the suite's checker names; loading takes seconds, and needs the file."""


class _SuiteFile(Part):
    """The YAML file."""

    name: Name
    kind: SuiteKind
    type: Literal["lm_eval"]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    include_path: str | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    apply_chat_template: bool = False
    metric: str | None = None


def is_harness_file(path: Path) -> bool:
    """Whether a suite file is for the harness; what cannot be read is not."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return False
    return isinstance(tree, dict) and tree.get("type") == TYPE


def load_harness_suite(path: Path) -> Suite:
    """The suite in ``path``. Raises ConfigError naming the file and what is wrong with it."""
    try:
        file = _SuiteFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in row['loc'])}: {row['msg']}" for row in error.errors()
        )
        raise ConfigError(f"{path}: a suite of type {TYPE}", got=faults) from error
    harness = _open(path, file)
    return Suite(
        name=file.name,
        kind=file.kind,
        checker=CheckerSpec(type=TYPE, options={"harness": harness.digest}),
        items=tuple(
            SuiteItem(
                item_id=document.item_id,
                prompt=(Message(role="user", content=document.prompt),),
                expected=document.expected,
            )
            for document in harness.documents
        ),
    )


def _open(path: Path, file: _SuiteFile) -> "Harness":
    try:
        from evaluator.harness.tasks import Harness, HarnessSpec
    except ImportError as error:
        raise ConfigError(
            f"{path}: lm-evaluation-harness",
            got=str(error),
            mend="pip install 'tacit[lm-eval]'",
        ) from error
    folder = None if file.include_path is None else path.parent / file.include_path
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{path}: include_path: a folder beside it", got=str(file.include_path))
    spec = HarnessSpec(
        tasks=file.tasks,
        include_path=folder,
        num_fewshot=file.num_fewshot,
        apply_chat_template=file.apply_chat_template,
        metric=file.metric,
    )
    try:
        harness = Harness(spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.expected}", got=error.got, mend=error.mend) from error
    return _loaded.setdefault(harness.digest, harness)


def is_harness_suite(suite: Suite) -> bool:
    """Whether the harness asks and scores ``suite``."""
    return suite.checker.type == TYPE


def harness_question(suite: Suite, item_id: str) -> Digest:
    """What an answer is cached under: the harness's tasks and the document."""
    tree: list[Any] = [TYPE, suite.checker.options.get("harness"), item_id]
    return sha256_digest(canonical_json(tree))


def ask_harness(policy: Generator, suite: Suite, *, batch_size: int) -> dict[Digest, Answer]:
    """Answers to all of ``suite`` by :func:`harness_question`; one more holds the tasks' summaries.

    Raises EvaluationError for a suite that was not loaded in this process.
    """
    harness = _loaded.get(str(suite.checker.options.get("harness")))
    if harness is None:
        raise EvaluationError(f"suite {suite.name} loaded from its file", got="a suite without it")
    answers, tasks = harness.run(policy.texts, batch_size=batch_size)
    summary = json.dumps([task.model_dump(mode="json") for task in tasks])
    answers[_SUMMARY] = Answer(summary, "stop")
    return {harness_question(suite, item_id): answer for item_id, answer in answers.items()}


def harness_tasks(cache: AnswerCache, weights: Digest, suite: Suite) -> tuple[HarnessTask, ...]:
    """What the harness said of a policy on ``suite``; nothing if it was not asked."""
    key = harness_question(suite, _SUMMARY)
    found = cache.find(weights, [key]).get(key)
    rows = [] if found is None else json.loads(found.text)
    return tuple(HarnessTask.model_validate(row) for row in rows)
