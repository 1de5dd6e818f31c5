"""The models that cross a border between stages. Each carries the digest of the one before it.

    FeedbackEvent → SealedBatch → PolicyCandidate → EvalReport → GateVerdict → Decision → Release

All are frozen, refuse unknown fields, NaN and infinity, and have one canonical JSON form.
"""

from tacit.contracts.base import (
    Contract,
    Digest,
    Part,
    canonical_json,
    sha256_digest,
    short,
    utc_now,
)
from tacit.contracts.batch import BatchEntry, Purpose, ReplayExample, ReplayOrigin, SealedBatch
from tacit.contracts.candidate import Fold, PolicyCandidate, VariantChoice, VariantResult
from tacit.contracts.decision import Approval, Decision, DecisionOutcome
from tacit.contracts.feedback import (
    Correction,
    Critique,
    Feedback,
    FeedbackEvent,
    Outcome,
    Preference,
    Rating,
    RatingScale,
)
from tacit.contracts.harness import HarnessComparison, HarnessTask
from tacit.contracts.interaction import InlineInteraction, Interaction, Message, SamplingParameters
from tacit.contracts.live import Arm, ArmComparison, ArmResult, LiveVerdict
from tacit.contracts.plan import PlannedTest
from tacit.contracts.release import Release, ReleaseBundle
from tacit.contracts.report import (
    Calibration,
    Comparison,
    EvalReport,
    ItemResult,
    ProbeResult,
    ReportOutline,
    SuiteChange,
    SuiteResult,
)
from tacit.contracts.rollout import RolloutStatus, ShadowCounts
from tacit.contracts.screened import EventStatus, ScreenedEvent
from tacit.contracts.suite import CheckerSpec, Suite, SuiteItem, SuiteKind
from tacit.contracts.value import ArmValue, ValueEstimate, ValueReport
from tacit.contracts.verdict import CampaignShare, Criterion, GateVerdict, VerdictOutcome

__all__ = [
    "Approval",
    "Arm",
    "ArmComparison",
    "ArmResult",
    "ArmValue",
    "BatchEntry",
    "Calibration",
    "CampaignShare",
    "CheckerSpec",
    "Comparison",
    "Contract",
    "Correction",
    "Criterion",
    "Critique",
    "Decision",
    "DecisionOutcome",
    "Digest",
    "EvalReport",
    "EventStatus",
    "Feedback",
    "FeedbackEvent",
    "Fold",
    "GateVerdict",
    "InlineInteraction",
    "HarnessComparison",
    "HarnessTask",
    "Interaction",
    "ItemResult",
    "LiveVerdict",
    "Message",
    "Outcome",
    "Part",
    "PlannedTest",
    "PolicyCandidate",
    "Preference",
    "ProbeResult",
    "Rating",
    "RatingScale",
    "Release",
    "ReleaseBundle",
    "Purpose",
    "ReplayExample",
    "ReplayOrigin",
    "ReportOutline",
    "RolloutStatus",
    "SamplingParameters",
    "ScreenedEvent",
    "SealedBatch",
    "ShadowCounts",
    "Suite",
    "SuiteChange",
    "SuiteItem",
    "SuiteKind",
    "SuiteResult",
    "VariantChoice",
    "VariantResult",
    "ValueEstimate",
    "ValueReport",
    "VerdictOutcome",
    "canonical_json",
    "sha256_digest",
    "short",
    "utc_now",
]
