"""What the steps of a cycle work with: the five stages of one policy line, over one database."""

from collector.store import EventStore
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from deploy.wanted import wanted_of
from evaluator.choose import VariantChooser
from evaluator.evaluate import Evaluator
from evaluator.harvest import harvest_suite, retention_suite
from evaluator.store import ReportStore
from evaluator.suites import load_suites
from evaluator.workers import open_workers
from gatekeeper.campaign import Campaigns
from gatekeeper.decide import Gatekeeper
from gatekeeper.key_entries import KeyEntries
from gatekeeper.ledger import Ledger
from gatekeeper.review_tokens import ReviewTokens
from tacit.checkpoints import CheckpointStore
from tacit.chronicle import Chronicle
from tacit.config import Settings
from tacit.contracts import Digest, ScreenedEvent, Suite
from tacit.cycles import CycleStore
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.heads import HeadKeeper, HeadStore
from tacit.keys import KeyStore
from tacit.signing import Signer
from tacit.tag_decisions import TagDecisions
from tacit.tracking import Tracking
from trainer.store import BatchStore, CandidateStore
from trainer.update import PolicyTrainer

MAX_HOLDOUT_EVENTS = 10_000
MAX_PROBED_EVENTS = 5_000
"""Of earlier batches, that probes look at beside the one under way."""


class Stages:
    """Opens the database, migrated, and everything that stands on it. Starts nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = settings.policy
        self.database = Database(settings.resolved_database_url)
        self.database.migrate()
        signer = Signer.load_or_create(settings.signing_path)
        self.checkpoints = CheckpointStore(settings.checkpoints_path)
        self.ledger = Ledger(self.database, signer)
        self.campaigns = Campaigns(self.database, self.ledger)
        self.cycles = CycleStore(self.database)
        self.events = EventStore(self.database)
        self.batches = BatchStore(self.database)
        self.candidates = CandidateStore(self.database)
        self.reports = ReportStore(self.database)
        self.trainer = PolicyTrainer(settings.trainer, self.checkpoints)
        self.evaluation_workers = open_workers(settings.evaluator, self.checkpoints)
        workers = self.evaluation_workers
        open_policy = None if workers is None else workers.open
        self.evaluator = Evaluator(
            settings.evaluator, self.checkpoints, self.database, open_policy=open_policy
        )
        self.chooser = VariantChooser(
            settings.evaluator, self.checkpoints, self.database, open_policy=open_policy
        )
        self.gatekeeper = Gatekeeper(self.database, signer, self.ledger, settings.gatekeeper)
        keys = KeyStore(self.database, vouch=KeyEntries(self.database, self.ledger).require)
        tokens = ReviewTokens(self.gatekeeper, self.database, signer, self.ledger, keys.holder)
        self.releases = ReleaseDesk(
            self.database,
            self.checkpoints,
            signer,
            self.ledger.append,
            clock=self.ledger.moment,
        )
        self.rollouts = RolloutDesk(self.database, self.ledger.append, clock=self.ledger.moment)
        self.heads = HeadKeeper(HeadStore(settings.tracking_uri), self.ledger.signed_head)
        tracking = Tracking(settings.tracking_uri)
        self.chronicle = Chronicle(settings, tracking, self.cycles)
        self.tag_decisions = TagDecisions(tracking, tokens)

    def champion(self) -> Digest:
        """Weights that should serve now; during a rollout those that all others are compared with.

        Raises ConflictError before the first release, IntegrityError if it was altered.
        """
        with self.database.reader() as session:
            wanted = wanted_of(session, self.policy)
        if wanted is None:
            raise ConflictError(
                "a first release", got="none", mend="Start with `tacit up --model PATH_OR_HUB_ID`."
            )
        return self.releases.signed.weights(wanted.champion)

    def suites(self) -> list[Suite]:
        """All that candidates are asked: suites on disk, the hold-out, and what was learned."""
        settings = self.settings.evaluator
        held_out = self.events.holdout(self.policy, limit=MAX_HOLDOUT_EVENTS)
        champion = self.champion()
        harvested = harvest_suite(
            held_out,
            min_items=settings.min_holdout_items,
            max_items=settings.max_holdout_items,
            trained=self.events.trained_clusters(self.policy),
            rotation=champion,
        )
        retained = retention_suite(
            self._promoted(champion, limit=settings.max_retention_items),
            held_out,
            min_items=settings.min_holdout_items,
            max_items=settings.max_retention_items,
        )
        made = [suite for suite in (harvested, retained) if suite is not None]
        return [*load_suites(self.settings.suites_path), *made]

    def taught_before(self, champion: Digest) -> list[ScreenedEvent]:
        """Newest events of the batches that taught ``champion``, since the first release."""
        batches = [made.batch_id for made in self.candidates.lineage(champion)]
        return self.events.learned(self.policy, limit=MAX_PROBED_EVENTS, batch_ids=batches)

    def _promoted(self, champion: Digest, *, limit: int) -> dict[str, list[ScreenedEvent]]:
        """Batches that taught ``champion``, each with the newest of its events."""
        batches = {made.batch_id for made in self.candidates.lineage(champion)}
        return {
            batch: self.events.learned(self.policy, limit=limit, batch_ids=[batch])
            for batch in sorted(batches)
        }


def known(value: str | None) -> str:
    """``value``, which an earlier state of the cycle must have set. Raises ConflictError."""
    if value is None:
        raise ConflictError("a cycle that knows what its earlier states made", got="nothing")
    return value
