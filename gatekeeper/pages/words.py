"""Values as people read them: moments, spans, shares, and ledger entries in a line."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from gatekeeper.audit import LedgerEntry
from gatekeeper.pages.plots import points
from tacit.contracts import Criterion, EventStatus, GateVerdict, VerdictOutcome, short

HEADLINES = {
    VerdictOutcome.PASS: "Passes the gate",
    VerdictOutcome.FAIL: "Fails the gate",
    VerdictOutcome.INCONCLUSIVE: "Inconclusive",
}

STATUS_WORDS = {
    EventStatus.QUEUED: "queued",
    EventStatus.HELD: "held",
    EventStatus.ACCEPTED: "accepted",
    EventStatus.HOLDOUT: "held out",
    EventStatus.QUARANTINED: "quarantined",
    EventStatus.DEAD_LETTER: "dead letter",
    EventStatus.ERASED: "erased",
}
_MAX_VALUE_LENGTH = 80


def worst_first(verdict: GateVerdict) -> list[Criterion]:
    """The whole table, with what decided the verdict on top."""
    order = [VerdictOutcome.FAIL, VerdictOutcome.INCONCLUSIVE, VerdictOutcome.PASS]
    return sorted(verdict.criteria, key=lambda row: order.index(row.outcome))


def moment(value: datetime) -> str:
    """A moment to the minute, in UTC."""
    return value.strftime("%-d %b %Y, %H:%M UTC")


def span(value: timedelta | float) -> str:
    """A length of time, or a number of seconds, in its two largest units."""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 1:
        return "under 1 s"
    for size, unit, smaller, small_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            return f"{whole} {unit} {rest // smaller} {small_unit}"
    return f"{seconds} s"


def percent(fraction: float) -> str:
    """An accuracy or a share."""
    return f"{100 * fraction:.1f}%"


def quantity(row: Criterion, value: float | None) -> str:
    """Observed or threshold of a criterion, in the unit of its kind."""
    if value is None:
        return ""
    if row.ci_low is not None:
        return points(value)
    counts = (row.observed or 0.0).is_integer() and (row.threshold or 0.0).is_integer()
    return f"{value:,.0f}" if counts else percent(value)


def entry_summary(entry: LedgerEntry) -> str:
    """What an entry records, in a line."""
    body = entry.body()
    match entry.kind, body:
        case "decision", {"decision": {"outcome": outcome, "decided_by": by, "reason": reason}}:
            return f"{outcome} by {by}: {reason}"
        case "verdict", {"verdict": {"outcome": outcome, "criteria": [*rows]}}:
            bad = [row["name"] for row in rows if row["outcome"] != VerdictOutcome.PASS]
            return f"{outcome}: {', '.join(bad)}" if bad else f"{outcome}: all {len(rows)} criteria"
        case "approval", {"approval": {"by": by, "reason": reason}}:
            return f"approved by {by}: {reason}"
        case "alpha_spent", {"candidate_id": candidate, "share": {"spent": spent, "alpha": alpha}}:
            return f"{spent:g} of an error budget of {alpha:g} spent on {candidate}"
        case "campaign_started", {"by": by, "reason": reason}:
            return f"another campaign started by {by}: {reason}"
        case "rollback", {"by": by, "reason": reason, "back_to": target}:
            return f"back to {target} by {by}: {reason}"
        case "rollout", {"stage": stage, "share": share, "by": by, "reason": reason}:
            part = "" if stage == "full" else f" of {share:.3g}"
            return f"{stage}{part} by {by}: {reason}"
        case "promotion" | "genesis", {"by": by, "decision": decision}:
            return f"released by {by} on {decision}"
        case "review_token", {"token": {"reviewer": by, "outcome": outcome, "reason": reason}}:
            return f"token with which {by} may say {outcome}: {reason}"
        case "gate_policy", {"replaces": before}:
            return "in force from here on" + (f", in place of {short(before)}" if before else "")
        case "gate_policy_sent", {"by": by}:
            return f"{by} answers for it"
        case "key_created" | "key_rotated" | "key_revoked", {"by": by, "scopes": [*scopes]}:
            return f"by {by}: may {', '.join(scopes)}{_bounds(body)}"
        case "quarantine_release" | "quarantine_drop", {"by": by, "reason": why, "events": [*told]}:
            verb = "released" if entry.kind.endswith("release") else "dropped"
            return f"{len(told):,} event{'s' * (len(told) != 1)} {verb} by {by}: {why}"
    return ", ".join(f"{key}: {_brief(value)}" for key, value in body.items())


def _bounds(body: Mapping[str, Any]) -> str:
    """What a key is bound to, in words; empty where it is bound to nothing."""
    named = {"source": "as {}", "policy": "on line {}", "expires_at": "until {}"}
    said = [form.format(body[name]) for name, form in named.items() if body.get(name)]
    return "".join(f" {part}" for part in said)


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"


def long_json(text: str) -> str:
    """JSON with an indent; what is no JSON as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def safe_link(url: str | None) -> str | None:
    """``url`` if it leads to a web page; anything else (``javascript:``) is not a link."""
    return url if url and urlsplit(url).scheme in {"http", "https"} else None
