"""Settings of what is rehearsed beside feedback, and how much of it when."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tacit.config.base import Alphas, Count, Positive, Section, Share


class ReplaySettings(Section):
    """Rehearsal against forgetting; on by default."""

    share: Share = 0.1
    """Replay examples over all examples of an update."""
    on_policy_share: Share = 0.5
    """Part of the replay whose prompts the parent answers itself before the batch is sealed. An
    answer is kept where ``checker`` accepts it; else the text known to be good is rehearsed."""
    checker: Literal["normalised", "exact", "contains", "numeric"] = "normalised"
    """How an answer is compared with the text known to be good; as in suites."""
    inferred: bool = True
    """Rehearse questions whose own feedback left no answer that stands with the answer that other
    feedback predicts (docs/adr/0024)."""
    anchor_path: Path | None = None
    """JSONL of ``{"prompt": str | messages, "completion": str}`` the policy must keep."""


class RebuildSettings(Section):
    """Updates that start from the line's frozen anchor and not from the champion (docs/adr/0022).

    They rehearse all that feedback taught and all anchor prompts, so that what a policy lost on the
    way comes back, and what it caught goes, but for the champion's share that is kept. For policies
    small enough to be taught everything once more.
    """

    every: Annotated[int, Field(ge=0)] = 0
    """Every so many updates one is a rebuild; 0 is never. Updates that were turned away count as
    well, but for rebuilds: one that was not promoted comes again after an ordinary update, so that
    learning goes on where the anchor cannot be taught everything once more."""
    num_examples: Count = 20_000
    """Replay examples of one, at most."""
    num_epochs: Count | None = None
    """Of a rebuild, which has more to learn than other updates; by default as many as these."""
    learning_rate: Positive | None = None
    """Likewise."""
    interpolation_alphas: Alphas | None = None
    """Shares of a rebuild that may become the candidate; by default those of other updates. The
    rest is the champion's."""

    def is_due(self, num_updates: int) -> bool:
        """Whether the next update starts from the anchor, ``num_updates`` after the last rebuild.

        They are counted as BatchStore.num_updates_since_rebuild does.
        """
        return self.every > 0 and num_updates + 1 >= self.every
