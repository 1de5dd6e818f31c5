"""What webhooks are told: entries of the ledger that people wait for, as messages.

Types are ``candidate.waiting``, ``candidate.decided`` and ``release.rolled_back``. Each is an entry
of the ledger first, so nothing is told that did not happen, and nothing is forgotten.
"""

import json
from typing import Any, Literal

from tacit.contracts import Part
from tacit.contracts.base import UtcDatetime

NoticeType = Literal[
    "candidate.waiting", "candidate.decided", "release.rolled_back", "webhook.test"
]


class Notice(Part):
    """A message in the form Standard Webhooks asks for: type, timestamp, data."""

    type: NoticeType
    timestamp: UtcDatetime
    data: dict[str, Any]


def notice_of(entry: str, *, public_url: str | None) -> Notice | None:
    """The message in an entry's canonical JSON; None if nobody waits for it.

    With ``public_url`` its data has a ``url`` at which a person sees more.
    """
    tree = json.loads(entry)
    made = _READERS.get(tree["kind"], _nothing)(tree["subject"], tree["body"])
    if made is None:
        return None
    kind, path, data = made
    if public_url is not None:
        data["url"] = f"{public_url.rstrip('/')}{path}"
    return Notice(type=kind, timestamp=tree["recorded_at"], data=data)


def as_slack(notice: Notice) -> dict[str, str]:
    """The message as Slack's incoming webhooks, and those like them, take it."""
    data = {key: _escaped(str(value)) for key, value in notice.data.items()}
    match notice.type:
        case "candidate.waiting":
            text = f"Candidate {data['candidate_id']} waits for a decision: {data['verdict']}."
        case "candidate.decided":
            text = (
                f"Candidate {data['candidate_id']} was {data['outcome']} "
                f"by {data['by']}: {data['reason']}"
            )
        case "release.rolled_back":
            text = (
                f"{data['back_to']} serves again, as {data['release_id']}, "
                f"by {data['by']}: {data['reason']}"
            )
        case _:
            text = "A test of this webhook by Tacit."
    link = f" <{data['url']}|Look at it>" if "url" in data else ""
    return {"text": text + link}


_Made = tuple[NoticeType, str, dict[str, Any]]


def _waiting(subject: str, body: dict[str, Any]) -> _Made | None:
    verdict = body["verdict"]
    data = {
        "candidate_id": subject,
        "policy": verdict["policy"],
        "verdict": verdict["outcome"],
        "candidate_digest": verdict["candidate_digest"],
    }
    return "candidate.waiting", f"/candidates/{subject}", data


def _decided(subject: str, body: dict[str, Any]) -> _Made | None:
    decision = body["decision"]
    if decision["kind"] != "gate":
        return None
    candidate_id = "c-" + decision["candidate_digest"].removeprefix("sha256:")[:12]
    data = {
        "candidate_id": candidate_id,
        "policy": decision["policy"],
        "decision_id": subject,
        "outcome": decision["outcome"],
        "by": decision["decided_by"],
        "reason": decision["reason"],
        "overrides": decision.get("overrides", []),
    }
    return "candidate.decided", f"/candidates/{candidate_id}", data


def _rolled_back(subject: str, body: dict[str, Any]) -> _Made | None:
    data = {
        "release_id": subject,
        "policy": body["release"]["policy"],
        "back_to": body["back_to"],
        "by": body["by"],
        "reason": body["reason"],
    }
    return "release.rolled_back", "/releases", data


def _nothing(_subject: str, _body: dict[str, Any]) -> _Made | None:
    return None


_READERS = {"verdict": _waiting, "decision": _decided, "rollback": _rolled_back}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
