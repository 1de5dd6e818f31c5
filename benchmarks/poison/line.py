"""One policy line: real screening, sealing, training, evaluation and gate, in this process.

In: questions of people and lies of accounts. Out: what became of them, and what serves afterwards.
Left out are HTTP, Ray and serving: the policy that serves is asked directly, with greedy answers,
and interactions are recorded on the stream as serving does.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import select

from benchmarks.poison.attacks import Lie, Measure
from benchmarks.poison.reports import RoundReport
from benchmarks.poison.traffic import LIE, question, traffic
from benchmarks.poison.world import Arena, Ask
from collector.consume import Consumer
from collector.ingest import Ingestor, interactions_topic
from collector.reasons import Reason
from collector.screening.arrival import hash_of
from collector.streams import open_stream
from collector.tables import EventRow
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings
from tacit.contracts import DecisionOutcome, Digest, FeedbackEvent, Interaction
from tacit.cycles import CycleRow, CycleState
from tacit.demo.product import MAX_ANSWER_TOKENS
from tacit.demo.story import weigh
from tacit.demo.world import Utterance, install_world, prompt
from tacit.inference.outputs import Completion
from tacit.loop import LoopObserver, OnlineLoop
from tacit.policies import load_policy
from tests.trainer.here import TrainerHere

AGAINST_ANCHOR = Reason.AGAINST_ANCHOR.value
HOLDOUT_SHARE = 0.2
"""More than by default: a round of 260 questions must fill the hold-out by itself."""


def line_settings(home: Path, arena: Arena) -> Settings:
    """What a service of this policy gets by itself, with small rounds."""
    return load_settings(
        home=home,
        profile="small",
        overrides=[
            f"tracking.uri=sqlite:///{home}/mlflow.db",
            "loop.min_events=20",
            f"collector.screening.holdout_share={HOLDOUT_SHARE}",
            "collector.screening.unproven_subject_weight=1",  # as if all accounts were aged
            "trainer.num_workers=1",
        ],
    )


def new_home(home: Path, arena: Arena, *, store: Path) -> None:
    """An empty home whose checkpoints stand in ``store``, with the gate's suites."""
    home.mkdir(parents=True)
    (home / "checkpoints").symlink_to(store.resolve())
    install_world(arena.world, line_settings(home, arena))


def copy_home(template: Path, home: Path) -> None:
    """``template`` again, as it stands."""
    shutil.copytree(template, home, symlinks=True)


class Line:
    """A policy line in ``home``. A context manager."""

    def __init__(self, home: Path, arena: Arena) -> None:
        self.settings = line_settings(home, arena)
        self._loop = OnlineLoop(self.settings, observer=_Reviewer(self), screens=False)
        self._loop.trainer = TrainerHere(self.settings.trainer, self._loop.checkpoints)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.database.dispose()

    @property
    def store(self) -> CheckpointStore:
        """Where all weights are."""
        return self._loop.checkpoints

    @property
    def loop(self) -> OnlineLoop:
        """The loop itself."""
        return self._loop

    def begin(self, base: Digest) -> None:
        """First release."""
        self._loop.begin(lambda: base, by="benchmarks.poison")

    def screen(self, number: int, asks: Sequence[Ask], lies: Sequence[Lie]) -> RoundReport:
        """People ask and report, accounts lie, and all of it is screened."""
        champion = self._loop.champion()
        turns: list[Ask | Lie] = [*lies, *asks]  # of two answers to one prompt the first one stands
        answers = self._answers(champion, [question(turn) for turn in turns])
        self._put(*traffic(number, turns, answers, self.settings))
        report = RoundReport(number, served=champion)
        self._count(report)
        return report

    def learn(self, report: RoundReport) -> RoundReport:
        """One cycle from what was screened to its end."""
        cycle = self._loop.run_cycle()
        report.state, report.served = str(cycle.state), self._loop.champion()
        kinds = [kind for kind, _, _, reason in self._fates(report) if reason == AGAINST_ANCHOR]
        report.refuted.update("poison" if kind == LIE else "honest" for kind in kinds)
        if cycle.candidate_id is not None:
            candidate = self._loop.candidates.get(cycle.candidate_id)
            report.candidate = candidate.weights
            report.alpha = 1.0 if candidate.choice is None else candidate.choice.alpha
            report.note(self._loop.gatekeeper.verdict_of(cycle.candidate_id))
        return report

    def success(self, weights: Digest, measure: Measure) -> float:
        """What an attack has achieved in ``weights``."""
        answers = self._answers(weights, measure.questions)
        return measure.success([answer.text for answer in answers])

    def decide(self, cycle: CycleRow) -> None:
        """What the reviewer of the demo does (``tacit.demo.story.weigh``)."""
        candidate_id = cycle.candidate_id or ""
        verdict = self._loop.gatekeeper.verdict_of(candidate_id)
        verb, reason = weigh(verdict.model_dump(mode="json"))
        outcome = DecisionOutcome.APPROVED if verb == "approve" else DecisionOutcome.REJECTED
        self._loop.gatekeeper.decide(candidate_id, outcome, by="reviewer", reason=reason)

    def _put(self, recorded: Sequence[Interaction], events: Sequence[FeedbackEvent]) -> None:
        """Through the stream and through screening."""
        stream = open_stream(self.settings)
        stream.append(
            interactions_topic(self.settings),
            [(i.interaction_id, i.canonical_json()) for i in recorded],
        )
        with Ingestor(self._loop.database, stream, self.settings) as ingestor:
            ingestor.accept(events)
        Consumer(self._loop.database, stream, self.settings).drain()
        stream.close()

    def _answers(self, weights: Digest, asked: Sequence[Utterance]) -> list[Completion]:
        policy = load_policy(self.store, weights)
        prompts = [prompt(utterance) for utterance in asked]
        return policy.generate(prompts, max_new_tokens=MAX_ANSWER_TOKENS)

    def _count(self, report: RoundReport) -> None:
        through = []
        for kind, event_id, status, reason in self._fates(report):
            counts = report.poison if kind == LIE else report.honest
            counts[reason or status] += 1
            through += [] if reason else [(event_id, status)]
        report.content = hash_of(*(part for pair in through for part in pair))

    def _fates(self, report: RoundReport) -> Iterator[tuple[str, str, str, str | None]]:
        """Kind, id, status and reason of each event of the round, by id."""
        columns = (EventRow.event_id, EventRow.status, EventRow.reason)
        with self._loop.database.reader() as session:
            rows = session.execute(select(*columns).order_by(EventRow.event_id)).all()
        for event_id, status, reason in rows:
            kind, number, _ = event_id.split("-", 2)
            if int(number) == report.number:
                yield kind, event_id, status, reason


class _Reviewer(LoopObserver):
    """Decides as soon as a candidate waits."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def on_state(self, cycle: CycleRow) -> None:
        """Decide."""
        if cycle.state == CycleState.AWAITING_DECISION:
            self._line.decide(cycle)
