"""What the steps of a cycle work with: the five stages of one policy line, over one database."""

from collector.store import EventStore
from deploy.release import ReleaseDesk
from evaluator.choose import VariantChooser
from evaluator.evaluate import Evaluator
from evaluator.store import ReportStore
from evaluator.suites import harvest_suite, load_suites
from gatekeeper.decide import Gatekeeper
from gatekeeper.ledger import Ledger
from tacit.checkpoints import CheckpointStore
from tacit.chronicle import Chronicle
from tacit.config import Settings
from tacit.contracts import Digest, Suite
from tacit.cycles import CycleStore
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.heads import HeadKeeper, HeadStore
from tacit.signing import Signer
from tacit.tracking import Tracking
from trainer.store import BatchStore, CandidateStore
from trainer.update import PolicyTrainer

MAX_HOLDOUT_EVENTS = 2_000


class Stages:
    """Opens the database, migrated, and everything that stands on it. Starts nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.policy = settings.policy
        self.database = Database(settings.resolved_database_url)
        self.database.migrate()
        signer = Signer.load_or_create(settings.keys_path)
        self.checkpoints = CheckpointStore(settings.checkpoints_path)
        self.ledger = Ledger(self.database, signer)
        self.cycles = CycleStore(self.database)
        self.events = EventStore(self.database)
        self.batches = BatchStore(self.database)
        self.candidates = CandidateStore(self.database)
        self.reports = ReportStore(self.database)
        self.trainer = PolicyTrainer(settings.trainer, self.checkpoints)
        self.evaluator = Evaluator(settings.evaluator, self.checkpoints, self.database)
        self.chooser = VariantChooser(settings.evaluator, self.checkpoints, self.database)
        self.gatekeeper = Gatekeeper(self.database, signer, self.ledger, settings.gatekeeper)
        self.releases = ReleaseDesk(
            self.database,
            self.checkpoints,
            signer,
            self.ledger.append,
            clock=self.ledger.moment,
        )
        self.heads = HeadKeeper(HeadStore(settings.tracking_uri), self.ledger.signed_head)
        self.chronicle = Chronicle(settings, Tracking(settings.tracking_uri), self.cycles)

    def champion(self) -> Digest:
        """Weights that should serve now. Raises ConflictError before the first release."""
        current = self.releases.current(self.policy)
        if current is None:
            raise ConflictError(
                "a first release", got="none", mend="Start with `tacit up --model PATH_OR_HUB_ID`."
            )
        return current.weights

    def suites(self) -> list[Suite]:
        """All that candidates are asked: the suites on disk, and the one held out from feedback."""
        suites = load_suites(self.settings.suites_path)
        held_out = self.events.holdout(self.policy, limit=MAX_HOLDOUT_EVENTS)
        harvested = harvest_suite(held_out, min_items=self.settings.evaluator.min_holdout_items)
        return suites if harvested is None else [*suites, harvested]


def known(value: str | None) -> str:
    """``value``, which an earlier state of the cycle must have set. Raises ConflictError."""
    if value is None:
        raise ConflictError("a cycle that knows what its earlier states made", got="nothing")
    return value
