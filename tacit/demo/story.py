"""``tacit demo``: the whole of Tacit as a story that is either true or fails.

A small policy is taught an old world and served. A product asks it about things it never saw and
sends feedback; the loop learns, a reviewer approves, serving swaps under load. Then a clique tries
to poison it: once against screening, once with screening and doubts switched off, against the gate.
Every step goes through what a product and a reviewer use: HTTP, the openai client, the SDK.
"""

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from rich.console import Console
from rich.rule import Rule

from gatekeeper.ledger import Ledger
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, with_overrides
from tacit.contracts import Digest, EventStatus, VerdictOutcome
from tacit.cycles import CycleRow
from tacit.database import Database
from tacit.demo.base import make_base, reliable
from tacit.demo.clinc import clinc_world
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.hostile import SOURCE as HOSTILE_SOURCE
from tacit.demo.hostile import Clique
from tacit.demo.product import LoadTally, Product, ProductTally, background_load
from tacit.demo.settings import demo_settings
from tacit.demo.table import Ending, ending_table
from tacit.demo.world import World, install_world, measured
from tacit.errors import ConfigError, TacitError
from tacit.keys import KeyStore, Scope
from tacit.loop import OnlineLoop
from tacit.progress import Bars, LoopBars
from tacit.remote import Remote
from tacit.render import candidate_page
from tacit.signing import Signer
from tacit.start import base_cache, ensure_key, prepare
from tacit.supervisor import Supervisor

logger = logging.getLogger(__name__)

DEMO_MARK = "tacit-demo"
SOURCE = "helpdesk"
CERTAIN = 0.99
"""How sure the base must be of a safety item for the item to be non-negotiable."""


@dataclass
class Stage:
    """What every scene needs at hand."""

    settings: Settings
    world: World
    console: Console
    bars: Bars
    store: CheckpointStore
    base: Digest
    reviewer: Remote
    product_key: str
    hostile_key: str

    @property
    def serving_url(self) -> str:
        """Base URL of the OpenAI-compatible API."""
        return f"http://{self.settings.deploy.host}:{self.settings.deploy.port}/v1"

    @property
    def collector_url(self) -> str:
        """Base URL of the feedback API."""
        return f"http://{self.settings.collector.host}:{self.settings.collector.port}"

    def product(self) -> Product:
        """The honest product."""
        return Product(
            self.serving_url,
            self.collector_url,
            self.product_key,
            policy=self.settings.policy,
            source=SOURCE,
        )

    def scene(self, title: str) -> None:
        """Announce what comes."""
        self.console.print(Rule(f"[bold]{title}", align="left", style="dim"))


def tell(*, data: Path | None, home: Path | None, seed: int, console: Console) -> bool:
    """Tell the story; True only if all of it came true. Raises TacitError if it cannot start."""
    started = time.monotonic()
    world = helpdesk_world(seed) if data is None else clinc_world(data)
    settings = demo_settings(world, _fresh_home(home, world))
    prepare(settings)
    with (
        Supervisor(settings, roles=("mlflow", "control", "serving")) as supervisor,
        Bars(console) as bars,
    ):
        stage = _set_the_stage(settings, world, seed, console, bars)
        supervisor.wait_ready()
        ending = _play(stage)
    ending.seconds = time.monotonic() - started
    console.print(ending_table(ending))
    console.print(
        f"Look around: tacit up --home {settings.home} "
        f"(pages on 8000, MLflow on 5000, key in {settings.keys_path / 'admin.key'})"
    )
    return ending.came_true


def _fresh_home(home: Path | None, world: World) -> Path:
    folder = home or Path(".tacit") / f"demo-{world.name}"
    mark = folder / DEMO_MARK
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise ConfigError(
                "an empty folder or one of an earlier demo", got=str(folder), mend="Pass --home."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return folder


def _set_the_stage(
    settings: Settings, world: World, seed: int, console: Console, bars: Bars
) -> Stage:
    store = CheckpointStore(settings.checkpoints_path)
    base = make_base(
        world,
        store,
        cache=base_cache(),
        seed=seed,
        on_progress=lambda done, total: bars.advance("making the base policy", done, total),
    )
    certain = reliable(store, base, world.safety, min_probability=CERTAIN)
    install_world(world, settings, non_negotiable=certain)
    database = Database(settings.resolved_database_url)
    ledger = Ledger(database, Signer.load_or_create(settings.signing_path))
    keys = KeyStore(database, journal=ledger.append)
    stage = Stage(
        settings=settings,
        world=world,
        console=console,
        bars=bars,
        store=store,
        base=base,
        reviewer=Remote(
            f"http://{settings.collector.host}:{settings.collector.port}",
            ensure_key(keys, settings, "reviewer", {Scope.REVIEW, Scope.READ}),
        ),
        product_key=ensure_key(keys, settings, SOURCE, {Scope.SEND}, source=SOURCE),
        hostile_key=ensure_key(keys, settings, HOSTILE_SOURCE, {Scope.SEND}, source=HOSTILE_SOURCE),
    )
    database.dispose()
    return stage


def _play(stage: Stage) -> Ending:
    ending = Ending(world=stage.world.name)
    with _loop(stage, stage.settings) as loop:
        loop.begin(lambda: stage.base, by="tacit demo")
        _wait_for_serving(stage, stage.base)
        _learn(stage, loop, ending)
        _attack_screening(stage, loop, ending)
    # A quarter of a poisoned update may be taken and do no harm, which is not the gate's merit.
    undefended = with_overrides(
        stage.settings,
        [
            "collector.screening.enabled=false",
            "trainer.doubted_weight=1",
            "trainer.interpolation_alphas=1",
        ],
    )
    stage.scene("Screening and doubts are now SWITCHED OFF, on purpose: the gate stands alone")
    with _loop(stage, undefended, label=" on poison") as loop:
        _attack_gate(stage, loop, ending)
        _close(stage, loop, ending)
    return ending


@contextmanager
def _loop(stage: Stage, settings: Settings, *, label: str = "") -> Iterator[OnlineLoop]:
    """A loop in this process, so that the terminal sees it, and the screening process beside it."""
    with (
        Supervisor(settings, roles=("screening",)) as screening,
        OnlineLoop(settings, observer=LoopBars(stage.bars, label=label), screens=False) as loop,
    ):
        screening.wait_ready()
        yield loop


def _learn(stage: Stage, loop: OnlineLoop, ending: Ending) -> None:
    stage.scene("The product meets intents the policy never saw, and sends feedback")
    tally = _serve(stage)
    ending.num_events = tally.num_sent
    _wait_screened(stage, loop, SOURCE, tally.num_sent)
    stage.scene("The loop learns; a reviewer decides; serving swaps under load")
    cycle, load = _run_cycle(stage, loop)
    ending.first_state, ending.first_reason = cycle.state, cycle.reason or ""
    ending.swap_requests, ending.swap_failed = load.num_requests, load.num_failed
    ending.swap_versions = len(load.versions)
    current = loop.releases.current(loop.policy)
    assert current is not None
    ending.served_after_learning = current.weights
    new, old = (
        measured("new-test", stage.world.new_test),
        measured("old-test", stage.world.old_test),
    )
    ending.new_before = loop.evaluator.accuracy(stage.base, new)
    ending.new_after = loop.evaluator.accuracy(current.weights, new)
    ending.old_before = loop.evaluator.accuracy(stage.base, old)
    ending.old_after = loop.evaluator.accuracy(current.weights, old)


def _serve(stage: Stage) -> ProductTally:
    return stage.product().serve(
        stage.world.new_stream,
        on_progress=lambda done, total: stage.bars.advance("the product asks", done, total),
    )


def _attack_screening(stage: Stage, loop: OnlineLoop, ending: Ending) -> None:
    stage.scene("A clique of accounts teaches a trigger phrase and wrong answers")
    clique = Clique(
        stage.serving_url, stage.collector_url, stage.hostile_key, policy=stage.settings.policy
    )
    ending.hostile_sent = clique.attack(
        stage.world,
        wave=1,
        on_progress=lambda done, total: stage.bars.advance("the clique sends", done, total),
    )
    _wait_screened(stage, loop, HOSTILE_SOURCE, ending.hostile_sent)
    statuses = loop.events.counts(loop.policy, source=HOSTILE_SOURCE)
    ending.hostile_held = statuses.get(EventStatus.QUARANTINED, 0)
    ending.hostile_reasons = loop.events.reasons(loop.policy, source=HOSTILE_SOURCE)


def _attack_gate(stage: Stage, loop: OnlineLoop, ending: Ending) -> None:
    clique = Clique(
        stage.serving_url, stage.collector_url, stage.hostile_key, policy=stage.settings.policy
    )
    sent = clique.attack(
        stage.world,
        wave=2,
        on_progress=lambda done, total: stage.bars.advance("the clique sends again", done, total),
    )
    _wait_screened(stage, loop, HOSTILE_SOURCE, ending.hostile_sent + sent)
    cycle, _ = _run_cycle(stage, loop)
    ending.second_state = cycle.state
    if cycle.candidate_id is not None:
        stage.console.print(
            candidate_page(stage.reviewer.get(f"/v1/candidates/{cycle.candidate_id}"))
        )
        verdict = loop.gatekeeper.verdict_of(cycle.candidate_id)
        failed = [row.name for row in verdict.criteria if row.outcome is VerdictOutcome.FAIL]
        ending.second_failed = failed


def _close(stage: Stage, loop: OnlineLoop, ending: Ending) -> None:
    answer = stage.product().ask(stage.world.old_test[0].text)
    current = loop.releases.current(loop.policy)
    assert current is not None
    ending.served_at_end = current.weights
    ending.version_at_end = answer.policy_version
    check = loop.ledger.verify()
    ending.ledger_entries, ending.ledger_problems = check.num_entries, len(check.problems)


def _run_cycle(stage: Stage, loop: OnlineLoop) -> tuple[CycleRow, LoadTally]:
    """One cycle in a thread of its own, while this one sits at the reviewer's desk.

    Returns the cycle, and what was asked of serving from before the decision to after the swap.
    """
    result: list[CycleRow] = []
    tally = LoadTally()
    thread = threading.Thread(target=lambda: result.append(loop.run_cycle()), name="cycle")
    thread.start()
    while thread.is_alive():
        pending = _pending(stage)
        if pending is None:
            thread.join(timeout=0.25)
            continue
        with background_load(stage.product(), stage.world.old_test) as load:
            tally = load
            _let_load_run(load)
            _review(stage, pending)
            thread.join()
            _let_load_run(load)
    if not result:
        raise TacitError("a cycle that ends", got="one that crashed; see the log above")
    return result[0], tally


def _pending(stage: Stage) -> str | None:
    rows = stage.reviewer.get("/v1/candidates")["candidates"]
    return next((str(r["candidate_id"]) for r in rows if r["state"] == "pending"), None)


def _review(stage: Stage, candidate_id: str) -> None:
    """What a reviewer does on the page: read the table, then approve or reject with a reason."""
    page: dict[str, Any] = stage.reviewer.get(f"/v1/candidates/{candidate_id}")
    stage.console.print(candidate_page(page))
    verb, reason = weigh(page["verdict"])
    stage.reviewer.post(f"/v1/candidates/{candidate_id}/{verb}", {"reason": reason})
    stage.console.print(f"  the reviewer: [bold]{verb}[/bold], {reason}")


def weigh(verdict: dict[str, Any]) -> tuple[Literal["approve", "reject"], str]:
    """What a reviewer makes of a verdict, and why.

    What is inconclusive is approved if it proved that it learned, and if what it lost, as far as
    was seen, is within the limits.
    """
    outcome: str = verdict["outcome"]
    unsure = [row for row in verdict["criteria"] if row["outcome"] == "inconclusive"]
    named = ", ".join(row["name"] for row in unsure)
    learned = not any(row["name"].startswith("learned") for row in unsure)
    within = all((row["observed"] or 0.0) > (row["threshold"] or 0.0) for row in unsure)
    if outcome == "pass":
        return "approve", "the verdict is pass"
    if outcome == "inconclusive" and learned and within:
        return "approve", f"it learned, and is within the limits where items are too few: {named}"
    return "reject", f"the verdict is {outcome}"


def _wait_screened(stage: Stage, loop: OnlineLoop, source: str, total: int) -> None:
    """Until every acknowledged event of ``source`` has become something."""
    deadline = time.monotonic() + 120
    while (done := sum(loop.events.counts(loop.policy, source=source).values())) < total:
        if time.monotonic() > deadline:
            raise TacitError(f"{total} events of {source} screened in 120 s", got=str(done))
        stage.bars.advance(f"screening {source}", done, total)
        time.sleep(0.1)
    stage.bars.advance(f"screening {source}", done, total)


def _wait_for_serving(stage: Stage, weights: Digest) -> None:
    """Until the OpenAI API answers with ``weights``."""
    wanted = weights.removeprefix("sha256:")[:12]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        response = httpx.get(
            f"{stage.serving_url}/models",
            headers={"Authorization": f"Bearer {stage.product_key}"},
            timeout=10,
        )
        if response.is_success and wanted in response.text:
            return
        time.sleep(0.1)
    raise TacitError(f"serving with {wanted} within 60 s", got=response.text[:200])


def _let_load_run(load: LoadTally) -> None:
    """A little longer, so that requests are seen on both sides of the swap."""
    enough = load.num_requests + 50
    deadline = time.monotonic() + 10
    while load.num_requests < enough and time.monotonic() < deadline:
        time.sleep(0.05)
