"""The grid: which attack, by how many accounts, with how many lies; and how one cell is run.

A cell starts from a copy of the template, in which the base policy serves. Its rounds are those of
the seed without an attack, with the lies before them.
"""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from benchmarks.poison.attacks import Attack, Kind, plan
from benchmarks.poison.line import Line, copy_home, new_home
from benchmarks.poison.records import Record, Round, round_from
from benchmarks.poison.reports import RoundReport
from benchmarks.poison.world import Arena, honest_round, open_arena
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from tacit.demo.base import make_base
from tacit.start import base_cache

AttackName = Literal["trigger", "flip", "degrade", "drip", "honest", "honest-drip"]
ATTACKS: tuple[AttackName, ...] = ("trigger", "flip", "degrade", "drip")
ACCOUNTS = (1, 5, 25)
COUNTS = (25, 50, 100, 250)
DRIP_ROUNDS = 10
ROUND_SIZE, NUM_NEW = 260, 5
"""Questions of honest people in a round, and new intents that some of them are about."""


class Cell(NamedTuple):
    """One attack on one seed."""

    attack: AttackName
    num_accounts: int
    num_lies: int
    seed: int

    @property
    def name(self) -> str:
        """As ``--cells`` takes it, and the seed."""
        return f"{self.attack}-{self.num_accounts}-{self.num_lies}-{self.seed}"

    @property
    def is_drip(self) -> bool:
        """Whether it goes on for ten rounds."""
        return self.attack in ("drip", "honest-drip")

    @property
    def num_rounds(self) -> int:
        """Rounds of feedback, each with a cycle of its own."""
        return DRIP_ROUNDS if self.is_drip else 1

    @property
    def honest(self) -> "Cell":
        """The same rounds without an attack."""
        return Cell("honest-drip" if self.is_drip else "honest", 0, 0, self.seed)


@dataclass(frozen=True)
class Workshop:
    """Folder of everything that cells share."""

    folder: Path

    @property
    def template(self) -> Path:
        """Home in which the base serves and nobody has said anything."""
        return self.folder / "template"

    @property
    def store(self) -> Path:
        """Checkpoints of all homes."""
        return self.folder / "checkpoints"

    def outcome(self, cell: Cell, content: str) -> Path:
        """What a round of ``cell`` came to in which just this got through screening."""
        return self.folder / "rounds" / f"{cell.seed}-{content}.json"


def grid(seeds: Sequence[int]) -> list[Cell]:
    """Every cell, the slow drip last."""
    return [
        Cell(attack, accounts, lies, seed)
        for attack in ATTACKS
        for seed in seeds
        for accounts in reversed(ACCOUNTS)
        for lies in reversed(COUNTS)
    ]


def one_thread() -> None:
    """Prepare a process of several: it computes on one core and says only what went wrong."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)


def make_template(workshop: Workshop) -> None:
    """The base and its first release, unless they are there already."""
    if workshop.template.exists():
        return
    arena = open_arena()
    workshop.store.mkdir(parents=True, exist_ok=True)
    base = make_base(arena.world, CheckpointStore(workshop.store), cache=base_cache())
    staged = workshop.folder / "incoming"
    shutil.rmtree(staged, ignore_errors=True)
    new_home(staged, arena, store=workshop.store)
    with Line(staged, arena) as line:
        line.begin(base)
    staged.rename(workshop.template)


def run_cell(cell: Cell, workshop: Workshop, *, config: str) -> Record:
    """The record of one cell; its home is thrown away.

    Where one round is all there is and another cell of the seed had the same get through
    screening, it ends as that one did: batch, candidate and hold-out are the same.
    """
    started = time.process_time()
    attacks = plans(cell, open_arena())
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix=f"poison-{cell.name}-") as folder:
        home = Path(folder) / "home"
        copy_home(workshop.template, home)
        with Line(home, open_arena()) as line:
            for number in range(1, cell.num_rounds + 1):
                report = _screened(line, cell, number, attacks)
                known = workshop.outcome(cell, report.content)
                if not cell.is_drip and known.is_file():
                    found = round_from(json.loads(known.read_text()))
                    found = replace(found, poison=dict(report.poison), honest=dict(report.honest))
                else:
                    found = _learned(line, report, attacks)
                if not cell.is_drip:
                    _keep(known, found)
                rounds.append(found)
    spent = round(time.process_time() - started, 1)
    return Record(cell=cell.name, config=config, rounds=tuple(rounds), cpu_s=spent)


def plans(cell: Cell, arena: Arena) -> dict[Kind, Attack]:
    """What the cell sends in all its rounds, and what is measured of every kind of attack.

    A drip is a trigger and a flip, half of each.
    """
    counts: dict[Kind, int] = {"trigger": 0, "flip": 0, "degrade": 0}
    if cell.attack == "drip":
        counts |= {"trigger": cell.num_lies - cell.num_lies // 2, "flip": cell.num_lies // 2}
    elif cell.attack in ("trigger", "flip", "degrade"):
        counts |= {cell.attack: cell.num_lies}
    accounts = max(1, cell.num_accounts)
    return {
        kind: plan(kind, arena, num_accounts=accounts, num_lies=number, seed=cell.seed)
        for kind, number in counts.items()
    }


def _screened(line: Line, cell: Cell, number: int, attacks: Mapping[Kind, Attack]) -> RoundReport:
    arena = open_arena()
    asks = honest_round(arena, number, size=ROUND_SIZE, num_new=NUM_NEW, seed=cell.seed)
    lies = [lie for a in attacks.values() for lie in a.lies[number - 1 :: cell.num_rounds]]
    return line.screen(number, asks, lies)


def _learned(line: Line, report: RoundReport, attacks: Mapping[Kind, Attack]) -> Round:
    found = line.learn(report)

    def success(weights: Digest) -> dict[str, float]:
        return {kind: line.success(weights, a.measure) for kind, a in attacks.items()}

    served = success(found.served)
    unseen = found.candidate is not None and found.candidate != found.served
    return Round(
        poison=dict(found.poison),
        honest=dict(found.honest),
        refuted=dict(found.refuted),
        state=found.state,
        verdict=found.verdict,
        not_passed=tuple(found.failed),
        observed=found.observed,
        alpha=found.alpha,
        candidate=success(found.candidate or "") if unseen else served,
        served=served,
    )


def _keep(path: Path, found: Round) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(asdict(found), file)
    Path(file.name).rename(path)
