"""The error budget of a campaign: each candidate that is judged spends a share, kept in the ledger.

A test that is wrong once in a thousand passes a bad candidate sooner or later if one may try often
enough. So all candidates of a campaign share one error probability (``campaign`` in the gate
policy): that any of them passes a test it should not have passed has at most the sum of their
shares as its probability (Bonferroni). What was spent is derived from the ledger alone: one
``alpha_spent`` entry a candidate since the last ``campaign_started``. When nothing is left no
verdict is better than ``inconclusive``, and a person decides, until an admin starts another.

The same evidence judged again spends nothing and gives the same verdict: answers are greedy, and a
suite is always asked in the same order. A candidate that was chosen among variants which were
measured on the same suites (``PolicyCandidate.choice``) spends a share for each of them.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.ledger import Ledger
from gatekeeper.policy import GatePolicy
from gatekeeper.tables import LedgerRow
from tacit.contracts import (
    CampaignShare,
    Digest,
    EvalReport,
    PolicyCandidate,
    canonical_json,
    sha256_digest,
)
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, InvalidInputError

STARTED, SPENT = "campaign_started", "alpha_spent"
ROUNDING = 1e-9
"""Fifty times a fiftieth is not quite one."""


class Campaign(NamedTuple):
    """One campaign of a policy line, as the ledger tells it."""

    campaign_id: str
    shares: Mapping[Digest, float]
    """What was spent, by the evidence it was spent on."""

    @property
    def spent(self) -> float:
        """Error probability that is gone."""
        return math.fsum(self.shares.values())

    def share(
        self, candidate: PolicyCandidate, report: EvalReport, policy: GatePolicy
    ) -> CampaignShare:
        """What judging ``report`` under ``policy`` costs."""
        evidence = evidence_digest(report, policy)
        before, alpha = self.spent, policy.campaign.alpha
        num_draws = 1 if candidate.choice is None else max(1, len(candidate.choice.variants))
        cost = 0.0 if evidence in self.shares else policy.campaign.share * num_draws
        is_exhausted = before + cost > alpha * (1 + ROUNDING) and cost > 0
        return CampaignShare(
            campaign=self.campaign_id,
            alpha=alpha,
            before=before,
            spent=0.0 if is_exhausted else cost,
            evidence=evidence,
            is_exhausted=is_exhausted,
        )

    def after(self, share: CampaignShare) -> "Campaign":
        """The campaign once ``share`` is spent."""
        if not share.spent:
            return self
        return self._replace(shares={**self.shares, share.evidence: share.spent})


def evidence_digest(report: EvalReport, policy: GatePolicy) -> Digest:
    """Of all that decides what the tests say: the same again is no new draw."""
    about = {
        "weights": report.weights,
        "champion": report.champion,
        "anchor": report.anchor,
        "suites": sorted([suite.name, suite.suite_digest] for suite in report.suites),
        "gate_policy": policy.digest(),
    }
    return sha256_digest(canonical_json(about))


class Campaigns:
    """The campaigns of all policy lines of one database."""

    def __init__(self, db: Database, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger

    def current(self, policy: str) -> Campaign:
        """The campaign of a policy line that is under way. Raises ConflictError as ``spend``."""
        with self._db.reader() as session:
            return self._current(session, policy)

    def spend(
        self, session: Session, policy: str, candidate_id: str, share: CampaignShare | None
    ) -> None:
        """Record ``share`` in the transaction of the verdict it stands in.

        Raises ConflictError when somebody spent or started a campaign since it was computed, or
        when an entry is not what was hashed: judging again is right then.
        """
        if share is None:
            return
        self._ledger.lock(session)
        campaign = self._current(session, policy)
        if (campaign.campaign_id, campaign.spent) != (share.campaign, share.before):
            raise ConflictError(
                f"campaign {share.campaign} with {share.before:g} spent",
                got=f"{campaign.campaign_id} with {campaign.spent:g}",
                mend="Judge the report again.",
            )
        if share.spent:
            body = {"candidate_id": candidate_id, "share": share.model_dump(mode="json")}
            self._ledger.append(session, SPENT, policy, body)

    def start(self, policy: str, *, by: str, reason: str) -> Campaign:
        """Begin another campaign with a whole budget; the ledger says who wanted it and why.

        Raises InvalidInputError without a reason.
        """
        if not reason.strip():
            raise InvalidInputError("a reason", got="nothing", mend="It goes into the ledger.")
        with self._db.session() as session:
            self._ledger.lock(session)
            old = self._current(session, policy)
            body = {"by": by, "reason": reason.strip(), "ended": old.campaign_id}
            self._ledger.append(session, STARTED, policy, {**body, "spent": old.spent})
            return self._current(session, policy)

    def _current(self, session: Session, policy: str) -> Campaign:
        here = LedgerRow.kind.in_((STARTED, SPENT)), LedgerRow.subject == policy
        query = select(LedgerRow.sequence).where(*here).order_by(LedgerRow.sequence)
        number_of_campaign, shares = 1, dict[Digest, float]()
        for number in session.scalars(query).all():
            kind, body = self._opened(session, number)
            said = body["spent"] if kind == STARTED else body["share"]["before"]
            # Each says what was spent before it, so that none can be taken out from among them.
            if said != math.fsum(shares.values()):
                raise _altered(number)
            if kind == STARTED:
                number_of_campaign, shares = number_of_campaign + 1, {}
            else:
                shares[body["share"]["evidence"]] = float(body["share"]["spent"])
        return Campaign(f"{policy}-{number_of_campaign}", shares)

    def _opened(self, session: Session, number: int) -> tuple[str, Mapping[str, Any]]:
        """Kind and body of an entry, proved by the signed head of the tree that ends with it."""
        try:
            entry = json.loads(self._ledger.prove_in(session, number, size=number + 1).entry)
        except IntegrityError as error:
            raise _altered(number) from error
        return str(entry["kind"]), entry["body"]


def _altered(number: int) -> ConflictError:
    return ConflictError(
        f"ledger entry {number} as it was signed",
        got="another, or one before it missing",
        mend="`tacit audit verify` names every entry that was altered.",
    )
