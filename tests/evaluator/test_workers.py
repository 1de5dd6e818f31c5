"""Evaluation on Ray workers: the same answers however many, and whoever is killed meanwhile."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import ray

from evaluator.answers import AnswerBook
from evaluator.evaluate import Evaluator, open_verified
from evaluator.workers import WorkerPool, open_workers
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import CheckerSpec, Suite, SuiteItem, SuiteKind
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.policies import load_policy
from tests import builders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]

PROMPTS = [builders.user(f"where is order {i} " + "x" * (i % 7)) for i in range(40)]


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    return CheckpointStore(tmp_path_factory.mktemp("workers") / "checkpoints")


class Dies:
    """A policy that kills its process at a prompt with a certain word, each time."""

    def __init__(self, store: CheckpointStore, weights: str, device: str) -> None:
        self._policy = load_policy(store, weights)

    def generate(self, prompts: Sequence[Any], **limits: int) -> Any:
        if any("poison" in prompt[-1].content for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any("broken" in prompt[-1].content for prompt in prompts):
            raise RuntimeError("a policy of that kind")
        return self._policy.generate(prompts, **limits)


@pytest.fixture(scope="module")
def pool(cluster: None, shared_store: CheckpointStore) -> Iterator[WorkerPool]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made = WorkerPool(shared_store, num_workers=2, gpus_per_worker=0, open_policy=Dies)
    yield made
    made.stop()


def suite_of(prompts: Sequence[Any], *, choices: tuple[str, ...] = (), **fields: Any) -> Suite:
    items = tuple(
        SuiteItem(item_id=str(i), prompt=p, expected="a", choices=choices)
        for i, p in enumerate(prompts)
    )
    return Suite(
        **{"name": "noise", "kind": SuiteKind.REGRESSION, "items": items, "max_new_tokens": 6}
        | fields
    )


def test_two_workers_answer_as_one_process(
    sqlite_database: Database, shared_store: CheckpointStore, pool: WorkerPool
) -> None:
    weights = builders.tiny_checkpoint(shared_store)
    done: list[int] = []
    book = AnswerBook(sqlite_database, pool.open, batch_size=8)
    found = book.ask(weights, PROMPTS, max_new_tokens=6, on_batch=done.append)
    here = load_policy(shared_store, weights).generate(PROMPTS, max_new_tokens=6, batch_size=8)
    assert [answer.text for answer in found] == [completion.text for completion in here]
    assert done == [8] * 5


def test_a_worker_killed_in_a_suite_is_replaced_and_the_suite_goes_on(
    sqlite_database: Database, shared_store: CheckpointStore, pool: WorkerPool
) -> None:
    weights = builders.tiny_checkpoint(shared_store)
    pool.start()
    victim = pool._free.get()
    pool._free.put(victim)
    killed = threading.Event()

    def kill(_: int) -> None:
        if not killed.is_set():
            killed.set()
            ray.kill(victim)

    suite = suite_of(PROMPTS)
    answers = AnswerBook(sqlite_database, pool.open, batch_size=4).answer_suite(
        weights, suite, on_batch=kill
    )
    here = load_policy(shared_store, weights).generate(PROMPTS, max_new_tokens=6, batch_size=4)
    assert [answer.text for answer in answers] == [completion.text for completion in here]
    assert killed.is_set()


def test_a_suite_that_kills_every_worker_is_named_and_the_others_go_on(
    sqlite_database: Database,
    shared_store: CheckpointStore,
    pool: WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluator.workers.MAX_ATTEMPTS", 1)  # workers take seconds to start
    weights = builders.tiny_checkpoint(shared_store)
    evaluator = Evaluator(
        EvaluatorSettings(batch_size=16), shared_store, sqlite_database, open_policy=pool.open
    )
    report = evaluator.evaluate(
        builders.candidate(weights=weights),
        champion=weights,
        anchor=weights,
        suites=[
            suite_of([builders.user("poison")], name="deadly"),
            suite_of([builders.user("broken")], name="raising"),
            suite_of(PROMPTS),
        ],
        learned=[],
    )
    assert [result.name for result in report.suites] == ["noise"]
    deadly, raising = report.errors
    assert deadly.startswith("suite deadly: EvaluationError")
    assert "died each time" in deadly
    assert raising.startswith("suite raising: EvaluationError")
    assert "a policy of that kind" in raising


def test_settings_decide_where_suites_are_answered(
    cluster: None, sqlite_database: Database, shared_store: CheckpointStore
) -> None:
    assert open_workers(EvaluatorSettings(), shared_store) is None
    workers = open_workers(EvaluatorSettings(num_workers=1), shared_store)
    assert workers is not None
    weights = builders.tiny_checkpoint(shared_store)
    choices = suite_of(PROMPTS[:3], checker=CheckerSpec(type="choice"), choices=("a", "b c"))
    try:
        book = AnswerBook(sqlite_database, workers.open, batch_size=2)
        found = book.answer_suite(weights, choices, on_batch=lambda _: None)
        policy = load_policy(shared_store, weights)
        here = policy.choose(PROMPTS[:3], [("a", "b c")] * 3, batch_size=2)
        assert [a.choices.logprobs for a in found if a.choices] == [
            pytest.approx(scores.logprobs, abs=1e-4) for scores in here
        ]
        remote = workers.open(weights).texts
        pairs = [("where is", f" {word}") for word in ("my", "the", "an") * 4]
        scored = remote.score_pairs(pairs, batch_size=1)
        expected = policy.texts.score_pairs(pairs, batch_size=1)
        assert [s.logprob for s in scored] == pytest.approx([e.logprob for e in expected], abs=1e-4)
        with pytest.raises(NotFoundError):
            workers.open(builders.digest("nobody")).texts.score_texts(["hi"], batch_size=1)
    finally:
        workers.stop()


def test_a_worker_verifies_what_it_loads(shared_store: CheckpointStore) -> None:
    with pytest.raises(NotFoundError):
        open_verified(shared_store, builders.digest("nobody"), "cpu")
