"""lm-evaluation-harness on our engine: the same answers as its own backend, scores item by item."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evaluator.answers import AnswerBook
from evaluator.evaluate import Evaluator
from evaluator.harness.model import HarnessModel
from evaluator.scoring import score_answers
from evaluator.suites import load_suite
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import EvalReport, Suite
from tacit.database import Database
from tacit.errors import ConfigError, EvaluationError
from tacit.policies import Policy, load_policy
from tests import builders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = ("order", "invoice", "parcel", "refund", "basket", "coupon", "ticket", "letter")
CONTEXTS = [f"where is my {word}" for word in WORDS]


@pytest.fixture
def policy(store: CheckpointStore) -> Policy:
    return load_policy(store, builders.tiny_checkpoint(store))


def theirs(policy: Policy) -> HFLM:
    return HFLM(
        pretrained=policy.model,
        tokenizer=policy.tokenizer,
        batch_size=3,
        device="cpu",
        max_length=policy.model.config.max_position_embeddings,
    )


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


ENDINGS = ("", "s", " now", "!")
PAIRS = [(c, f" {w}{e}") for c in CONTEXTS for w, e in zip(WORDS[:4], ENDINGS, strict=True)]
ASKED = {
    "loglikelihood": [*PAIRS, ("", "where"), ("ends in space ", "here"), ("x" * 400, " cut")],
    "generate_until": [
        (context, {"until": until, "max_gen_toks": 12, "do_sample": False})
        for context in CONTEXTS
        for until in (["\n"], [" ", "e"])
    ],
    "loglikelihood_rolling": [(text * times,) for text in CONTEXTS for times in (1, 12)],
}


@pytest.mark.parametrize("kind", list(ASKED))
def test_answers_are_those_of_the_backend_of_the_harness(policy: Policy, kind: str) -> None:
    ours = HarnessModel(policy.texts, batch_size=3)
    asked = requests(kind, ASKED[kind])
    found, expected = getattr(ours, kind)(asked), getattr(theirs(policy), kind)(asked)
    if kind == "generate_until":
        assert found == expected
    elif kind == "loglikelihood":
        assert [f[0] for f in found] == pytest.approx([e[0] for e in expected], abs=1e-3)
        assert [f[1] for f in found] == [e[1] for e in expected]
    else:
        assert found == pytest.approx(expected, abs=1e-2)


def test_a_task_that_samples_is_refused(policy: Policy) -> None:
    options = {"until": [], "do_sample": True, "temperature": 0.7}
    with pytest.raises(EvaluationError, match="greedily"):
        HarnessModel(policy.texts, batch_size=3).generate_until(
            requests("generate_until", [("hello", options)])
        )


CHOICE_TASK = {
    "task": "whereabouts",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 2.0},
}
TEXT_TASK = {
    "task": "echoes",
    "dataset_path": "json",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{said}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    ],
    "metadata": {"version": 1.0},
}


def write_suite_file(folder: Path, policy: Policy, **fields: Any) -> Path:
    """A suite of both tasks; half of the echoes are what the policy says."""
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    said = policy.texts.complete(CONTEXTS, until=["\n"], max_new_tokens=4, batch_size=8)
    rows = [
        {
            "question": context,
            "choices": [WORDS[i], WORDS[(i + 3) % 8], "nowhere"],
            "answer": i % 3,
            "said": said[i] if i % 2 else "never said",
        }
        for i, context in enumerate(CONTEXTS)
    ]
    data = tasks / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for task in (CHOICE_TASK, TEXT_TASK):
        tree = {**task, "dataset_kwargs": {"data_files": {"test": str(data)}}}
        (tasks / f"{task['task']}.yaml").write_text(yaml.safe_dump(tree))
    path = folder / "harness.yaml"
    spec = {
        "name": "harness",
        "kind": "capability",
        "type": "lm_eval",
        "tasks": ["whereabouts", "echoes"],
        "include_path": "tasks",
    }
    path.write_text(yaml.safe_dump({**spec, **fields}))
    return path


@pytest.fixture
def suite_file(tmp_path: Path, policy: Policy) -> Path:
    return write_suite_file(tmp_path, policy)


@pytest.fixture
def suite(suite_file: Path) -> Suite:
    return load_suite(suite_file)


class Counting:
    """Opens one policy, and counts how often."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.num_opened = policy, 0

    def __call__(self, weights: str) -> Policy:
        self.num_opened += 1
        return self.policy


def test_scores_stderr_and_hash_are_those_of_the_harness(
    sqlite_database: Database, policy: Policy, suite: Suite, suite_file: Path
) -> None:
    book = AnswerBook(sqlite_database, Counting(policy), batch_size=3)
    answers = book.answer_suite(policy.digest, suite, on_batch=lambda _: None)
    scores = score_answers(suite, answers)
    assert [item.item_id for item in suite.items][7:9] == ["whereabouts/7", "echoes/0"]
    assert scores[8:] == [0, 1] * 4
    assert answers[9].text == suite.items[9].expected.strip() or answers[9].text
    manager = TaskManager(include_path=str(suite_file.parent / "tasks"), include_defaults=False)
    expected = evaluate(
        theirs(policy), task_dict=manager.load(["whereabouts", "echoes"]), bootstrap_iters=10
    )
    assert scores[:8] == [s["acc"] for s in expected["samples"]["whereabouts"]]
    choice, text = book.harness_tasks(policy.digest, suite)
    row = expected["results"]["whereabouts"]
    assert (choice.value, choice.stderr) == (row["acc,none"], row["acc_stderr,none"])
    assert (choice.task, choice.version, choice.metric) == ("whereabouts", "2.0", "acc,none")
    assert (text.value, text.metric) == (0.5, "exact_match,none")
    assert len(choice.task_hash) == 64
    assert choice.task_hash != text.task_hash


def test_what_was_answered_is_cached_item_by_item(
    sqlite_database: Database, policy: Policy, suite: Suite
) -> None:
    opened = Counting(policy)
    book = AnswerBook(sqlite_database, opened, batch_size=3)
    (first,) = book.answer_items(policy.digest, suite, [9], on_batch=lambda _: None)
    book.close()
    everything = book.answer_suite(policy.digest, suite, on_batch=lambda _: None)
    assert everything[9] == first
    assert opened.num_opened == 1


def test_a_report_compares_the_items(
    sqlite_database: Database, store: CheckpointStore, policy: Policy, suite: Suite
) -> None:
    evaluator = Evaluator(EvaluatorSettings(batch_size=4), store, sqlite_database)
    weights = policy.digest
    report = evaluator.evaluate(
        builders.candidate(weights=weights),
        champion=weights,
        anchor=weights,
        suites=[suite],
        learned=[],
    )
    assert report.errors == ()
    (result,) = report.suites
    assert result.num_items == 16
    assert 0.25 <= result.candidate <= 0.75
    assert evaluator.accuracy(weights, suite) == result.candidate
    choice, text = result.harness
    assert choice.candidate == choice.champion == choice.anchor
    assert (choice.candidate.value + text.candidate.value) / 2 == result.candidate
    assert choice.candidate.stderr is not None
    assert EvalReport.model_validate_json(report.canonical_json()) == report


def test_the_digest_is_that_of_tasks_and_documents(tmp_path: Path, policy: Policy) -> None:
    first = load_suite(write_suite_file(tmp_path, policy))
    assert load_suite(write_suite_file(tmp_path, policy)).digest() == first.digest()
    shots = load_suite(write_suite_file(tmp_path, policy, metric="acc", tasks=["whereabouts"]))
    assert shots.digest() != first.digest()
    path = write_suite_file(tmp_path, policy)
    task = tmp_path / "tasks" / "whereabouts.yaml"
    task.write_text(task.read_text().replace("Question:", "Q:"))
    assert load_suite(path).digest() != first.digest()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"tasks": []}, "tasks"),
        pytest.param(  # looks through all that the harness ships
            {"tasks": ["no_such_task_anywhere"]}, "no_such_task_anywhere", marks=pytest.mark.slow
        ),
        ({"include_path": "nowhere"}, "include_path"),
        ({"metric": "bleu"}, "metric"),
        ({"checker": {"type": "exact"}}, "checker"),
    ],
)
def test_faults_name_the_file(
    tmp_path: Path, policy: Policy, fields: dict[str, Any], error: str
) -> None:
    path = write_suite_file(tmp_path, policy, **fields)
    with pytest.raises(ConfigError, match=r"harness\.yaml") as caught:
        load_suite(path)
    assert error in str(caught.value)


def test_a_suite_without_its_tasks_is_an_error_and_no_zero(
    sqlite_database: Database, policy: Policy, suite: Suite
) -> None:
    lost = suite.model_copy(
        update={"checker": suite.checker.model_copy(update={"options": {"harness": "gone"}})}
    )
    book = AnswerBook(sqlite_database, Counting(policy), batch_size=3)
    with pytest.raises(EvaluationError, match="loaded from its file"):
        book.answer_suite(policy.digest, lost, on_batch=lambda _: None)
