"""Tokens that carry one reviewer's decision through a channel that proves nobody, such as a tag.

Anybody who can write to MLflow can set a tag. A token proves who decided: it is made for one
reviewer, one candidate with its verdict and one outcome, works once, and only as long as the
reviewer's key is in force. Of its secret only the hash is kept.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy.orm import Session

from gatekeeper.approvals import Reviewer
from gatekeeper.cases import SignedDecision, find_case
from gatekeeper.decide import Gatekeeper
from gatekeeper.ledger import Ledger
from gatekeeper.refusals import require_decidable, require_text
from gatekeeper.tables import ReviewTokenRow
from tacit.contracts import DecisionOutcome, Digest, Part
from tacit.contracts.base import Text, UtcDatetime
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotAuthenticatedError
from tacit.keys import Principal, Scope
from tacit.signing import Signer

PREFIX = "tacit-review"
VALID_FOR = timedelta(days=1)
"""A token lives this long at the most, and never longer than its candidate waits."""


class TokenOrder(Part):
    """What a token is bound to."""

    token_id: str
    candidate_id: str
    candidate_digest: Digest
    verdict_digest: Digest
    outcome: DecisionOutcome
    reason: Text
    reviewer: str
    key_id: str
    """The key it was issued to."""
    expires_at: UtcDatetime


class IssuedToken(NamedTuple):
    """A token's text, shown once, and what it is bound to."""

    text: str
    order: TokenOrder


class ReviewTokens:
    """Issues and redeems tokens; safe to share between threads."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        db: Database,
        signer: Signer,
        ledger: Ledger,
        holder: Callable[[str], Principal],
    ) -> None:
        """``holder`` says who holds a key with an id, as ``KeyStore.holder`` does."""
        self._gatekeeper = gatekeeper
        self._db = db
        self._signer = signer
        self._ledger = ledger
        self._holder = holder

    def issue(
        self, candidate_id: str, outcome: DecisionOutcome, *, to: Principal, reason: str
    ) -> IssuedToken:
        """A token with which ``to`` decides on a pending candidate, once.

        Raises NotFoundError, NotAllowedError without scope ``review``, InvalidInputError without a
        reason, ConflictError if the candidate is not pending.
        """
        require_text(by=to.name, reason=reason)
        require_decidable(outcome)
        text, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self._db.session() as session:
            self._ledger.lock(session)
            case, now = self._gatekeeper.open_case(session, candidate_id)
            _require_reviewer(to, case.policy)
            order = TokenOrder(
                token_id=text,
                candidate_id=candidate_id,
                candidate_digest=case.verdict.candidate_digest,
                verdict_digest=case.verdict.digest(),
                outcome=outcome,
                reason=reason.strip(),
                reviewer=to.name,
                key_id=to.key_id,
                expires_at=min(now + VALID_FOR, case.expires_at),
            )
            session.add(
                ReviewTokenRow(
                    token_id=order.token_id,
                    secret_hash=_hash(secret),
                    envelope=self._signer.seal(order.model_dump(mode="json")),
                    expires_at=order.expires_at,
                    used_at=None,
                )
            )
            body = {"token": order.model_dump(mode="json")}
            self._ledger.append(session, "review_token", candidate_id, body, at=now)
        return IssuedToken(f"{PREFIX}.{text}.{secret}", order)

    def redeem(self, text: str, *, candidate_digest: Digest) -> SignedDecision | None:
        """Decide on the candidate with this digest as the token says; None as ``decide`` does.

        Raises NotAuthenticatedError on a token that is unknown, used, past its end or of a key no
        longer in force; ConflictError if it is about another candidate; and as ``decide`` does. A
        token whose decision was refused is not used up.
        """
        with self._db.session() as session:
            self._ledger.lock(session)
            row, order = self._find(session, text)
            now = self._ledger.now(session, self._gatekeeper.clock())
            if row.used_at is not None or now >= order.expires_at:
                raise _refused(
                    "one that was used" if row.used_at is not None else "one past its end"
                )
            if order.candidate_digest != candidate_digest:
                raise ConflictError(f"a token about {candidate_digest}", got=order.candidate_digest)
            reviewer = self._holder(order.key_id)
            case = find_case(session, order.candidate_id, self._signer)
            _require_reviewer(reviewer, case.policy)
            if reviewer.name != order.reviewer:
                raise _refused(f"one of {order.reviewer}, whose key is now {reviewer.name}'s")
            row.used_at = now
            return self._gatekeeper.decide_in(
                session,
                order.candidate_id,
                order.outcome,
                reviewer=Reviewer(reviewer.name, Scope.ADMIN in reviewer.scopes),
                reason=order.reason,
                verdict_digest=order.verdict_digest,
            )

    def _find(self, session: Session, text: str) -> tuple[ReviewTokenRow, TokenOrder]:
        prefix, token_id, secret = (*text.strip().split("."), "", "", "")[:3]
        known = prefix == PREFIX and len(token_id) == 16 and token_id.isalnum()
        row = session.get(ReviewTokenRow, token_id, with_for_update=True) if known else None
        if row is None or not secrets.compare_digest(row.secret_hash, _hash(secret)):
            raise _refused("one that nobody issued")
        try:
            order = TokenOrder.model_validate(self._signer.open(row.envelope))
        except ValidationError as error:
            raise IntegrityError(f"the signed token {token_id}", got=str(error)) from error
        if order.token_id != token_id:
            raise IntegrityError(f"the signed token {token_id}", got=order.token_id)
        return row, order


def _require_reviewer(principal: Principal, policy: str) -> None:
    principal.require(Scope.REVIEW)
    principal.require_target(policy=policy)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _refused(got: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(
        "a review token in force", got=got, mend="`tacit tokens issue` makes one."
    )
