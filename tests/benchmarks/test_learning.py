"""benchmarks.learning: figures are right, and all arms run."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import results
from benchmarks.learning import __main__ as command
from benchmarks.learning import cell as cells
from benchmarks.learning.arms import ARMS, CEILING, DEFAULT
from benchmarks.learning.cell import Cell, run_cell
from benchmarks.learning.measure import BaseView, accuracy, backward_transfer, flips, sample
from benchmarks.learning.plan import chosen_cells, full_cells, quick_cells
from benchmarks.learning.probes import Row
from benchmarks.learning.rows import append_row, current, missing, read_rows
from benchmarks.learning.run import digest_of
from benchmarks.learning.scale import SMALL, WHOLE, Scale
from benchmarks.learning.summary import by_arm, dominating, interval, promised
from benchmarks.learning.variants import VARIANTS
from benchmarks.learning.world import REFUSAL, learning_world, neighbours, with_refusals
from evaluator.choose import VariantChooser
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, VariantChoice, VariantResult
from tacit.demo.clinc import clinc_world
from tacit.demo.world import Utterance, World
from tacit.policies import load_policy
from tests.benchmarks.toy_world import TINY, TOY
from tests.builders import tiny_checkpoint
from tests.tacit.demo.clinc_data import made_up, write

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

KL = "trainer.kl_weight=4"


def test_refusals_are_taught_and_others_are_measured(tmp_path: Path) -> None:
    data = {**made_up(), "oos_val": [["asked 1", "oos"]], "oos_test": [["unheard of", "oos"]]}
    data["oos_train"].append(["unheard of", "oos"])
    path = write(tmp_path, data)

    world = with_refusals(clinc_world(path, num_old=4, num_new=2), path)

    assert [u.text for u in world.safety] == ["unheard of"]
    refused = [u.text for u in world.old_train if u.answer == REFUSAL]
    assert refused == ["what is love", "asked 1"]


def test_neighbours_are_old_intents_of_the_same_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TACIT_CLINC150", str(tmp_path))
    write(tmp_path, made_up())
    domains = {"one": ["intent_10", "intent_0"], "two": ["intent_1", "intent_11"]}
    (tmp_path / "domains.json").write_text(json.dumps(domains))
    world = World("clinc150", (), (), TOY.old_test, (), ())

    assert neighbours(world, ["intent 10"]) == {"intent 0"}
    assert neighbours(TOY, ["intent 10"]) == {"intent 0", "intent 1", "intent 2"}


def test_without_the_data_set_the_world_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TACIT_CLINC150", str(tmp_path))

    assert learning_world(0).name == "helpdesk"


def test_the_small_world_asks_as_much_about_an_intent_as_the_whole_one() -> None:
    """And two in three are old, and the same share of a round is about what arrives in it."""
    old_per_new = {scale.num_old / scale.num_new for scale in (SMALL, WHOLE)}
    requests = {
        scale.sizes.per_round * scale.sizes.num_rounds / scale.num_new for scale in (SMALL, WHOLE)
    }

    assert old_per_new == {2}
    assert requests == {100}


def test_a_world_is_as_large_as_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TACIT_CLINC150", str(tmp_path))
    write(tmp_path, {**made_up(), "oos_val": [], "oos_test": []})

    world = learning_world(0, 3, 2)

    assert len({u.answer for u in world.old_test}) == 3
    assert len({u.answer for u in world.new_stream}) == 2


def test_quick_measures_anew_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is published must not be taken for what this machine measured."""
    written = []
    everything = {"new": 0.5, "old": 0.9, "overturned": 0.8, "neighbours": 0.9}

    def measure(wanted: Sequence[Cell], path: Path, *, jobs: int, scale: Scale) -> int:
        written.append(path)
        for cell in wanted:
            row = finished(cell.arm, cell.variant, cell.seed, **everything)
            append_row(path, {**row, "config_digest": digest_of(cell, scale)})
        return 0

    monkeypatch.setenv("TACIT_CLINC150", str(tmp_path))
    monkeypatch.setattr(command, "run_cells", measure)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["learning", "--quick"])
    command.main()
    command.main()

    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["num_cells"] for each in printed] == [len(quick_cells())] * 2
    assert printed[0]["overturned"] == pytest.approx(0.8)
    assert len(set(written)) == 2
    assert not any(path.exists() for path in written)


def test_backward_transfer_is_the_mean_change_since_arrival() -> None:
    history = [{1: 0.9}, {1: 0.8, 2: 1.0}, {1: 0.6, 2: 0.9, 3: 0.5}]

    assert backward_transfer(history[:1]) is None
    assert backward_transfer(history[:2]) == pytest.approx(-0.1)
    assert backward_transfer(history) == pytest.approx((-0.3 - 0.1) / 2)


def test_accuracy_and_flips() -> None:
    asked = [Utterance("a", "x"), Utterance("b", "y")]

    assert accuracy(asked, ["x", "x"], lambda u: u.answer) == 0.5
    assert accuracy(asked, ["z", "z"], lambda _: "z") == 1
    assert math.isnan(accuracy([], [], lambda u: u.answer))
    assert flips([True, True, False, False], [True, False, True, False]) == 0.25


def test_samples_are_the_same_every_time_and_in_order() -> None:
    whole = {"old": TOY.old_test}

    found = sample(whole, {"old": 4})["old"]

    assert found == sample(whole, {"old": 4})["old"]
    assert [u for u in TOY.old_test if u in found] == list(found)
    assert len(found) == 4
    assert sample(whole, {"old": 100}) == whole


def test_distance_to_the_base_is_zero_for_the_base_and_grows(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    base, moved = (load_policy(store, tiny_checkpoint(store)) for _ in range(2))
    view = BaseView.of(base, TOY.old_test[:3])
    with torch.no_grad():
        moved.model.get_input_embeddings().weight.mul_(1.5)

    assert view.kl(base) == 0
    assert view.kl(moved) > 0


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of a few utterances and a tiny random base."""
    monkeypatch.setattr(cells, "learning_world", lambda *_: TOY)
    monkeypatch.setattr(cells, "base_policy", lambda _, store, **__: tiny_checkpoint(store))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.usefixtures("toy")
def test_every_arm_runs_a_round(arm: str) -> None:
    row = run_cell(Cell(arm, "mixed", 0), TINY)

    assert json.loads(json.dumps(row))["cell"] == {
        "arm": arm,
        "variant": "mixed",
        "seed": 0,
        "overrides": [],
    }
    last = row["rounds"][-1]
    assert last["round"] == (0 if arm == "frozen" else 1)
    if arm == "frozen":
        assert last["kl_to_base"] == 0
    elif arm == "sdpo":  # a random policy never samples a success
        assert "success" in last["update"]["failed"]
    else:
        assert last["kl_to_base"] > 0
    if arm not in ("frozen", CEILING):
        assert row["num_events"] == last["update"]["num_events"] > 0


@pytest.mark.usefixtures("toy")
def test_delayed_feedback_arrives_rounds_later_and_all_of_it() -> None:
    row = run_cell(Cell("lora", "delayed", 0), TINY)

    updates = [each["update"] for each in row["rounds"][1:]]
    assert updates[:2] == [None, None]
    assert updates[2]["num_events"] == row["num_events"] > 0


@pytest.mark.usefixtures("toy")
def test_a_rebuild_whose_smallest_share_falls_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(
        _: VariantChooser,
        alphas: Sequence[float],
        *,
        trained: Digest,
        from_smallest: bool,
        **__: object,
    ) -> VariantChoice:
        tried = alphas[0] if from_smallest else alphas[-1]
        result = VariantResult(
            alpha=tried, weights=trained, stands=not from_smallest, why="", versus_champion={}
        )
        return VariantChoice(alpha=alphas[-1], trained=trained, reason="", variants=(result,))

    monkeypatch.setattr(VariantChooser, "choose", choose)
    rounds = replace(TINY, sizes=replace(TINY.sizes, num_rounds=3))
    row = run_cell(Cell("tacit", "mixed", 0, ("trainer.rebuild.every=2",)), rounds)

    base, first, rebuilt, third = row["rounds"]
    assert [each["update"]["stands"] for each in (first, rebuilt, third)] == [True, False, True]
    assert base["kl_to_base"] < first["kl_to_base"] == rebuilt["kl_to_base"]
    assert third["kl_to_base"] != rebuilt["kl_to_base"]


@pytest.mark.usefixtures("toy")
def test_a_cell_is_measured_where_rules_are_overturned() -> None:
    row = run_cell(Cell("lora", "overturned", 0), TINY)

    assert row["turn"] == 1
    assert row["final"].keys() >= {"overturned", "overturned_stale", "neighbours"}


def finished(arm: str, variant: str = "mixed", seed: int = 0, **final: float) -> Row:
    cell = {"arm": arm, "variant": variant, "seed": seed, "overrides": []}
    rounds = [{"neighbours": 0.9}, {"neighbours": 0.8}]
    return {"cell": cell, "config_digest": "d", "turn": 2, "rounds": rounds, "final": final}


def test_a_run_that_was_cut_off_does_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.jsonl"
    append_row(path, finished("tacit", new=1 / 3))
    with path.open("a") as file:
        file.write('{"cell": {"arm": "torn')
    append_row(path, finished("joint"))

    rows = read_rows(path)
    wanted = [Cell(arm, "mixed", 0) for arm in ("tacit", "joint", "lora")]
    assert [row["cell"]["arm"] for row in rows] == ["tacit", "joint"]
    assert rows[0]["final"]["new"] == pytest.approx(1 / 3, abs=1e-6)
    assert missing(wanted, rows, lambda _: "d") == wanted[2:]
    assert current(wanted, rows, lambda _: "d") == rows
    assert missing(wanted, rows, lambda _: "other") == wanted
    assert current(wanted, rows, lambda _: "other") == []


def test_other_settings_make_another_digest() -> None:
    tacit, lora = (
        cells.config_digest(Cell(arm, "mixed", 0), TINY, TOY) for arm in ("tacit", "lora")
    )
    larger = cells.config_digest(Cell("tacit", "mixed", 0), WHOLE, TOY)

    assert len({tacit, lora, larger}) == 3
    assert tacit == cells.config_digest(Cell("tacit", "mixed", 0), TINY, TOY)


def test_later_answers_make_other_cells_of_overturned_rules_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def digests() -> list[str]:
        variants = ("mixed", "overturned")
        return [cells.config_digest(Cell("joint", each, 0), TINY, TOY) for each in variants]

    mixed, overturned = digests()
    monkeypatch.setattr(cells, "LATER_ANSWERS", ("another answer",))
    assert digests()[0] == mixed
    assert digests()[1] != overturned


def test_settings_that_are_tried_make_other_cells_and_stay_out_of_tables() -> None:
    plain = Cell(DEFAULT, "mixed", 0)
    (tried,) = chosen_cells([plain, Cell("lora", "mixed", 0)], arms=[DEFAULT], overrides=[KL])

    assert tried.settings == [KL]
    assert cells.config_digest(tried, TINY, TOY) != cells.config_digest(plain, TINY, TOY)
    row = finished(DEFAULT)
    row["cell"]["overrides"] = [KL]
    assert Cell.of(row) == tried
    assert by_arm([row]) == {}


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])

    assert found.mean == 2
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert interval([1.0]).half_width == math.inf


def test_what_is_promised_is_counted_against_joint_training_and_the_frozen_base() -> None:
    rows = [
        finished("frozen", new=0.0, old=0.9),
        finished("joint", new=0.8, old=0.9),
        finished("tacit", new=0.75, old=0.89),
        finished("tacit", "noise-0.3", new=0.7, old=0.88),
        finished("tacit", "overturned", new=0.7, old=0.8, overturned=0.9, neighbours=0.85),
        finished("lora", new=0.75, old=0.9),
        finished("full", new=0.8, old=0.8),
    ]

    found = promised(by_arm(rows))

    assert found == {
        "gain_gap_to_joint": pytest.approx(0.05),
        "old_drop": pytest.approx(0.01),
        "noisy_gain_gap": pytest.approx(0.1),
        "noisy_old_drop": pytest.approx(0.02),
        "overturned": pytest.approx(0.9),
        "neighbour_drop": pytest.approx(-0.05 + 0.1 - 0.1 + 0.0),
        "dominated_by": "lora",
    }
    assert dominating(by_arm(rows[:3])) == []


def test_a_full_run_begins_with_what_the_quick_one_measures() -> None:
    full = full_cells()

    assert len(set(full)) == len(full)
    assert set(quick_cells()) <= set(full[: len(quick_cells(range(3)))])
    assert {c.arm for c in full} == ARMS.keys()
    assert {c.variant for c in full if c.arm == DEFAULT} == VARIANTS.keys()
