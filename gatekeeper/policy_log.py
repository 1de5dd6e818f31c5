"""Which gate policy is in force, who sent it, and the entries of the ledger that say so.

The policy in force is a file (``gatekeeper.gate_policy_path``). A person vouches for one with
``tacit gate send``, before or after it is put in place; every other change is noticed when the next
candidate is judged, and nobody is known to have sent it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from gatekeeper.ledger import Ledger
from gatekeeper.policy import GatePolicy, load_gate_policy
from gatekeeper.tables import LedgerRow
from tacit.contracts import Digest

IN_FORCE, SENT = "gate_policy", "gate_policy_sent"


class PolicyInForce(NamedTuple):
    """The gate policy, and who answers for it."""

    policy: GatePolicy
    digest: Digest
    senders: frozenset[str]
    """Who sent it, by the ledger."""
    is_change: bool
    """False for the policy Tacit ships with and for the first one of a ledger."""

    @property
    def sent_by_nobody_known(self) -> bool:
        """Whether it replaced another and nobody vouched for it."""
        return self.is_change and not self.senders

    @property
    def sole_sender(self) -> str | None:
        """The one person behind a change; None if there are several or it is none."""
        return next(iter(self.senders)) if self.is_change and len(self.senders) == 1 else None

    @property
    def may_promote(self) -> bool:
        """Whether it approves what passes: never a change that one person alone answers for."""
        trusted = not self.is_change or len(self.senders) > 1
        return self.policy.auto_promote == "pass" and trusted


class PolicyLog:
    """Reads the policy in force and keeps the ledger in step with it."""

    def __init__(self, ledger: Ledger, path: Path | None) -> None:
        self._ledger = ledger
        self._path = path

    def in_force(self, session: Session) -> PolicyInForce:
        """The policy in force; a change of it becomes an entry in the caller's transaction.

        Raises as :meth:`look` does.
        """
        policy = load_gate_policy(self._path)
        digest = policy.digest()
        newest = select(LedgerRow.subject).where(LedgerRow.kind == IN_FORCE)
        last = session.scalar(newest.order_by(LedgerRow.sequence.desc()).limit(1))
        if last != digest:
            body = {"policy": policy.model_dump(mode="json"), "replaces": last}
            self._ledger.append(session, IN_FORCE, digest, body)
        return self.look(session)

    def look(self, session: Session) -> PolicyInForce:
        """The policy in force.

        Raises ConfigError if it cannot be read: an unreadable gate is a closed one. Raises
        IntegrityError if what the ledger says about it was altered.
        """
        policy = load_gate_policy(self._path)
        digest = policy.digest()
        entries = self._entries(session, IN_FORCE, digest)
        return PolicyInForce(
            policy,
            digest,
            senders=frozenset(self._senders(session, digest)),
            is_change=self._path is not None and all(body["replaces"] for body in entries),
        )

    def send(self, session: Session, policy: GatePolicy, *, by: str) -> None:
        """Let ``by`` vouch for ``policy``, in the caller's transaction."""
        digest = policy.digest()
        if by not in self._senders(session, digest):
            body = {"policy": policy.model_dump(mode="json"), "by": by}
            self._ledger.append(session, SENT, digest, body)

    def _senders(self, session: Session, digest: Digest) -> set[str]:
        return {body["by"] for body in self._entries(session, SENT, digest)}

    def _entries(self, session: Session, kind: str, digest: Digest) -> list[dict[str, Any]]:
        """Bodies of the entries of ``kind`` about the policy ``digest``.

        Proved against the signed head, so that who can write to the table cannot name a sender.
        """
        about = (LedgerRow.kind == kind) & (LedgerRow.subject == digest)
        numbers = session.scalars(select(LedgerRow.sequence).where(about)).all()
        entries = [json.loads(self._ledger.prove_in(session, n).entry) for n in numbers]
        return [e["body"] for e in entries if (e["kind"], e["subject"]) == (kind, digest)]
