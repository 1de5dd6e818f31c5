"""A loop in this process that learns from what people say, and a reviewer who approves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from deploy.api import roll_back_with
from evaluator.suites import write_suite
from tacit.config import Settings, load_settings
from tacit.contracts import (
    Correction,
    Digest,
    FeedbackEvent,
    PolicyCandidate,
    Release,
    Suite,
    SuiteItem,
    SuiteKind,
    short,
    utc_now,
)
from tacit.cycles import CycleRow, CycleState
from tacit.loop import LoopObserver, OnlineLoop
from tacit.policies import completion_ids, load_policy
from tests.builders import interaction, tiny_checkpoint, user
from tests.integration.crashing_loop import _approve as approve
from tests.integration.scenes import GATE
from tests.trainer.here import Here
from trainer.update import PolicyTrainer

TOPICS = ("parcel late", "refund asked", "invoice wrong", "login lost", "coupon dead", "box torn")
BAD, HONEST = "zzz qqq", "ship it"
LEARNED = 1.0
"""By how much the log-probability of a token rises at least where it was taught."""


def learning_settings(home: Path, tracking_uri: str) -> Settings:
    """A loop that starts a cycle at six events and rehearses what it was taught."""
    home.mkdir()
    (home / "gate.yaml").write_text(GATE)
    made = load_settings(
        home=home,
        overrides=[
            f"tracking.uri={tracking_uri}",
            f"gatekeeper.gate_policy_path={home}/gate.yaml",
            "loop.min_events=6",
            "loop.poll_s=0.01",
            "collector.screening.holdout_share=0",
            "evaluator.min_holdout_items=1",
            "trainer.num_workers=1",
            "trainer.num_epochs=8",
            "trainer.batch_size=4",
            "trainer.learning_rate=0.003",
            "trainer.full_fine_tuning=true",
            "trainer.interpolation_alphas=1",
            "trainer.replay.share=0.5",
        ],
    )
    items = tuple(
        SuiteItem(item_id=f"q{i}", prompt=user(f"order {i}"), expected="x") for i in range(4)
    )
    suite = Suite(name="old", kind=SuiteKind.REGRESSION, items=items, max_new_tokens=2)
    write_suite(made.suites_path, suite)
    return made


@contextmanager
def running(settings: Settings, observer: LoopObserver | None = None) -> Iterator[OnlineLoop]:
    loop = OnlineLoop(settings, observer=observer, screens=False)
    loop.trainer = trainer_here(loop)
    loop.begin(lambda: tiny_checkpoint(loop.checkpoints), by="test")
    yield loop
    loop.database.dispose()


def trainer_here(loop: OnlineLoop) -> PolicyTrainer:
    store = loop.checkpoints
    return PolicyTrainer(loop.settings.trainer, store, open_group=lambda _: Here(store))


def teach(loop: OnlineLoop, answer: str, *, where: str) -> set[str]:
    """Corrections of six people that teach ``answer`` for prompts of their own; their keys."""
    said = short(answer.encode().hex())
    events = [
        FeedbackEvent(
            event_id=f"{where}-{number}",
            policy=loop.policy,
            source="helpdesk",
            subject_id=f"{where}-{number}",
            occurred_at=utc_now(),
            feedback=Correction(completion=answer),
            interaction=interaction(f"{topic} {where} {said}", "wrong"),
        )
        for number, topic in enumerate(TOPICS)
    ]
    stream = open_stream(loop.settings)
    with Ingestor(loop.database, stream, loop.settings) as ingestor:
        ingestor.accept(events)
    Consumer(loop.database, stream, loop.settings).drain()
    stream.close()
    return {event.event_key for event in events}


def promoted(loop: OnlineLoop) -> PolicyCandidate:
    """The candidate of one cycle, with a reviewer who approves."""
    cycle = one_cycle(loop)
    assert cycle.state == CycleState.PROMOTED, cycle.reason
    return loop.candidates.get(str(cycle.candidate_id))


def one_cycle(loop: OnlineLoop) -> CycleRow:
    done = threading.Event()
    reviewer = threading.Thread(target=approve, args=(loop, done), daemon=True)
    reviewer.start()
    cycle = loop.run_cycle()
    done.set()
    reviewer.join()
    return cycle


def roll_back(loop: OnlineLoop) -> Release:
    """As the command does it."""
    release, _ = roll_back_with(
        loop.releases,
        loop.policy,
        to=None,
        by="ada",
        reason="it swears",
        on_rollback=lambda session, batches, keep: loop.events.take_back(
            session, [f"b-{short(batch)}" for batch in batches], keep=keep
        ),
    )
    return release


def likes(loop: OnlineLoop, weights: Digest, answer: str) -> float:
    """Mean log-probability of a token of ``answer`` on prompts that nobody taught."""
    policy = load_policy(loop.checkpoints, weights)
    answer_ids = completion_ids(policy.tokenizer, answer)
    total = 0.0
    for topic in TOPICS:
        prompt = policy.tokenizer.apply_chat_template(
            [{"role": "user", "content": topic}], add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([prompt + answer_ids])
        with torch.no_grad():
            logprobs = policy.model(ids).logits.log_softmax(-1)
        rows = logprobs[0, len(prompt) - 1 : -1]
        total += float(rows.gather(1, torch.tensor(answer_ids)[:, None]).mean())
    return total / len(TOPICS)


def learned_from(loop: OnlineLoop, candidate: PolicyCandidate) -> set[str]:
    batch, _ = loop.batches.get(candidate.batch_id)
    return {entry.event_key for entry in batch.entries}
