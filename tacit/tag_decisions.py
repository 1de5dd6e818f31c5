"""Decisions by a tag in MLflow: the tag's value is a token that was issued to a reviewer.

In: the tag ``tacit.decision`` on the model version of the candidate that waits. Out: the decision;
the tag is taken away, since a used token says nothing more, and ``tacit.decision.answer`` says in
words what came of it.
"""

import logging
import time

from mlflow.exceptions import MlflowException

from gatekeeper.review_tokens import ReviewTokens
from tacit.contracts import PolicyCandidate
from tacit.errors import TacitError
from tacit.tracking import Tracking

logger = logging.getLogger(__name__)

TAG = "tacit.decision"
ANSWER = "tacit.decision.answer"


class TagDecisions:
    """Looks for the tag at most every ``interval_s``."""

    def __init__(
        self, tracking: Tracking, tokens: ReviewTokens, *, interval_s: float = 2.0
    ) -> None:
        self._tracking = tracking
        self._tokens = tokens
        self._interval_s = interval_s
        self._looked_at: float | None = None

    def look(self, candidate: PolicyCandidate) -> None:
        """Take the decision that a tag on ``candidate`` carries, if there is one.

        A tag that carries none, or none that is allowed, is answered and decides nothing. While
        MLflow is away nothing happens.
        """
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < self._interval_s:
            return
        self._looked_at = now
        line, weights = candidate.policy, candidate.weights
        try:
            token = self._tracking.version_tags(line, weights).get(TAG)
            if token is None:
                return
            # Taken away first: what everybody can read must not stay there unused.
            self._tracking.untag_version(line, weights, TAG)
            answer = self._redeem(token, candidate)
            self._tracking.tag_version(line, weights, {ANSWER: answer})
        except MlflowException as error:
            logger.warning("MLflow did not show the tags of %s: %s", candidate.candidate_id, error)

    def _redeem(self, token: str, candidate: PolicyCandidate) -> str:
        try:
            signed = self._tokens.redeem(token, candidate_digest=candidate.digest())
        except TacitError as error:
            logger.warning("a tag on %s decides nothing: %s", candidate.candidate_id, error)
            return f"refused: {error}"
        if signed is None:
            return "approved; more people must approve"
        return f"{signed.decision.outcome} by {signed.decision.decided_by}"
