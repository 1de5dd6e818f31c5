"""ArmTest: is the canary worse than the champion? Asked after every piece of live feedback.

In: arm, subject and success in [0, 1], in order. Out: ``continue``, ``promote`` or ``rollback``,
and the numbers behind it. It may be looked at after each event and acted on at once: a canary that
loses no more than ``tolerance`` is ever rolled back with a probability of at most ``alpha``.

What one subject says hangs together, so a subject has one vote in each arm, the mean of its
feedback, however much it sends. Subjects queue in order of their first feedback and are set against
each other in blocks, which are bet on (``deploy/betting.py``); a vote in a block goes on moving
with its subject, and what was won with it. Where subjects send one event each, the capital is a
supermartingale and ``alpha`` holds at all looks together, for any distribution. Where they send
several, its mean is at most 1 at any moment chosen beforehand, whatever holds within subjects, and
``benchmarks.canary`` simulates looking at every event.

A single vote at most doubles the capital, so that no subject rolls back a release alone.
"""

import math
from collections import deque

import numpy as np

from deploy.betting import Table, largest_stake, loss_bounds, mean_bounds
from deploy.capital import Capital, Vote
from deploy.verdict_words import sentence
from tacit.contracts import Arm, ArmComparison, ArmResult, LiveVerdict
from tacit.errors import InvalidInputError

MAX_RATIO = 8
"""Subjects of the one arm beside one of the other in a block, at most."""
PATIENCE = 25
"""What waits in the longer queue is spread over as many blocks as were made, at least so many."""
_ARMS: tuple[Arm, ...] = ("champion", "canary")


class ArmTest:
    """Feed it with ``update``; read ``verdict`` whenever you like and ``summary`` for people."""

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        margin: float = 0.03,
        min_feedback: int = 100,
        max_feedback: int | None = None,
        tolerance: float = 0.0,
    ) -> None:
        """Success counts as a share: a ``margin`` of 0.03 is three points.

        alpha: probability of ever rolling back a canary that loses no more than ``tolerance``, and
            of ever promoting by the interval one that loses ``margin``.
        min_feedback: events on the canary before it may be promoted.
        max_feedback: events on the canary after which it is promoted although its interval is still
            wide, if it lost less than ``margin`` so far; None waits for the interval.
        """
        self.alpha = alpha
        self.margin = margin
        self.tolerance = tolerance
        self._min_feedback = min_feedback
        self._max_feedback = max_feedback
        self._votes: dict[Arm, dict[str, Vote]] = {arm: {} for arm in _ARMS}
        self._waiting: dict[Arm, deque[Vote]] = {arm: deque() for arm in _ARMS}
        self._compared: dict[Arm, list[Vote]] = {arm: [] for arm in _ARMS}
        self._num_feedback: dict[Arm, int] = dict.fromkeys(_ARMS, 0)
        self._sum_means: dict[Arm, float] = dict.fromkeys(_ARMS, 0.0)
        self._sum_compared = 0.0
        self._num_blocks = 0
        self._worse = Capital(tolerance, 1)
        self._fine = Capital(margin, -1)
        self._settled: LiveVerdict = "continue"

    def update(self, arm: Arm, subject: str, success: float) -> LiveVerdict:
        """Count one piece of feedback and return the verdict. Raises InvalidInputError."""
        if not 0 <= success <= 1:
            raise InvalidInputError("a success from 0 to 1", got=str(success))
        votes = self._votes[arm]
        self._num_feedback[arm] += 1
        vote = votes.get(subject)
        if vote is None:
            vote = votes[subject] = Vote()
            vote.total, vote.count = success, 1
            self._sum_means[arm] += success
            self._waiting[arm].append(vote)
            self._compare()
        else:
            self._move(arm, vote, success)
        if self._settled == "continue":
            self._settled = self._decide()
        return self._settled

    @property
    def verdict(self) -> LiveVerdict:
        """What was decided first; it stays, whatever comes later."""
        return self._settled

    @property
    def e_value(self) -> float:
        """The capital won against a loss of at most ``tolerance``."""
        return math.exp(min(self._worse.log, 700.0))

    @property
    def summary(self) -> ArmComparison:
        """All numbers. Costs a root search over all subjects: for people, not for each event."""
        champion, canary = (self._result(arm) for arm in _ARMS)
        loss = loss_bounds(self._table(), alpha=self.alpha)
        return ArmComparison(
            verdict=self._settled,
            champion=champion,
            canary=canary,
            difference=self._difference(),
            difference_low=-loss[1],
            difference_high=-loss[0],
            e_value=self.e_value,
            alpha=self.alpha,
            margin=self.margin,
            tolerance=self.tolerance,
            num_compared=sum(len(votes) for votes in self._compared.values()),
            why=sentence(
                self._settled,
                champion=champion,
                canary=canary,
                loss=loss,
                e_value=self.e_value,
                alpha=self.alpha,
                margin=self.margin,
                tolerance=self.tolerance,
            ),
        )

    def _move(self, arm: Arm, vote: Vote, success: float) -> None:
        before = vote.success
        vote.total += success
        vote.count += 1
        after = vote.success
        self._sum_means[arm] += after - before
        if vote.stake:
            self._sum_compared += after - before
            self._worse.move(vote, before, after)
            self._fine.move(vote, before, after)

    def _compare(self) -> None:
        """Make a block if both queues have someone. Looks at numbers only, never at successes."""
        champions, canaries = self._waiting["champion"], self._waiting["canary"]
        if not champions or not canaries:
            return
        blocks = max(self._num_blocks, PATIENCE)
        m = min(max(len(canaries) // blocks, 1), MAX_RATIO)
        r = min(max(len(champions) // blocks, 1), MAX_RATIO) if m == 1 else 1
        compared = 2 + sum(len(votes) for votes in self._compared.values())
        centre = (1 + self._sum_compared) / compared
        stake = largest_stake(centre, m, r)
        self._num_blocks += 1
        for _ in range(m):
            self._enter("canary", centre, lean=-r / (m + r), stake=-r * stake)
        for _ in range(r):
            self._enter("champion", centre, lean=m / (m + r), stake=m * stake)

    def _enter(self, arm: Arm, centre: float, *, lean: float, stake: float) -> None:
        vote = self._waiting[arm].popleft()
        vote.centre, vote.lean, vote.stake = centre, lean, stake
        self._compared[arm].append(vote)
        self._sum_compared += vote.success
        self._worse.move(vote, None, vote.success)
        self._fine.move(vote, None, vote.success)

    def _decide(self) -> LiveVerdict:
        enough = -math.log(self.alpha)
        if self._worse.reaches(enough):
            return "rollback"
        num_feedback = self._num_feedback["canary"]
        if num_feedback < self._min_feedback:
            return "continue"
        if self._fine.reaches(enough):
            return "promote"
        if self._max_feedback is None or num_feedback < self._max_feedback:
            return "continue"
        difference = self._difference()
        return "promote" if difference is not None and difference > -self.margin else "continue"

    def _difference(self) -> float | None:
        champion, canary = self._mean("champion"), self._mean("canary")
        return None if champion is None or canary is None else canary - champion

    def _mean(self, arm: Arm) -> float | None:
        number = len(self._votes[arm])
        return min(max(self._sum_means[arm] / number, 0.0), 1.0) if number else None

    def _result(self, arm: Arm) -> ArmResult:
        votes = self._votes[arm].values()
        success = np.array([vote.success for vote in votes])
        low, high = mean_bounds(success, alpha=self.alpha)
        return ArmResult(
            num_feedback=self._num_feedback[arm],
            num_subjects=len(votes),
            mean=self._mean(arm),
            low=low,
            high=high,
        )

    def _table(self) -> Table:
        votes = [vote for votes in self._compared.values() for vote in votes]
        rows = [(vote.success, vote.centre, vote.lean, vote.stake) for vote in votes]
        return Table(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)
