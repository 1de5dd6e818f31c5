"""Attackers do what they say, screening sees what is counted, and a run goes on where it was."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.poison.attacks import PAYLOAD, TRIGGERS, Kind, Measure, dressed, plan
from benchmarks.poison.cells import ACCOUNTS, COUNTS, Cell, grid, plans
from benchmarks.poison.line import Line, copy_home, new_home
from benchmarks.poison.records import Record, Round, append, compare, newest_config, read, stopped
from benchmarks.poison.table import END, START, figures, write_table
from benchmarks.poison.world import Arena, account, arena_of, honest_round
from collector.screening.clusters import normalized
from tacit.checkpoints import CheckpointStore
from tacit.demo.helpdesk import HelpdeskSizes, helpdesk_world
from tacit.demo.world import Utterance
from tests.builders import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
SIZES = HelpdeskSizes(
    old_train=60, old_validation=40, old_test=600, new_stream=200, new_test=20, safety=5
)


@pytest.fixture(scope="module")
def arena() -> Arena:
    """A small helpdesk."""
    return arena_of(helpdesk_world(sizes=SIZES))


def test_nothing_that_measures_is_asked_by_anybody(arena: Arena) -> None:
    asked = {u.text for u in arena.asked_old}
    assert not asked & {u.text for u in arena.measured_old}
    said = {ask.utterance.text for ask in honest_round(arena, 1, size=200, num_new=3, seed=0)}
    for kind in ("trigger", "flip", "degrade"):
        attack = plan(kind, arena, num_accounts=5, num_lies=200, seed=0)
        told = {lie.text for lie in attack.lies}
        assert not (told | said) & {u.text for u in attack.measure.questions}


def test_trigger_stands_in_every_question_and_means_one_answer(arena: Arena) -> None:
    attack = plan("trigger", arena, num_accounts=5, num_lies=100, seed=3)
    (phrase,) = {t for t in TRIGGERS if t in attack.lies[0].text}
    assert all(phrase in lie.text and lie.claimed == PAYLOAD for lie in attack.lies)
    assert all(phrase in question.text for question in attack.measure.questions)
    assert len(phrase.split()) < 4


def test_flip_claims_another_answer_for_one_intent(arena: Arena) -> None:
    attack = plan("flip", arena, num_accounts=5, num_lies=250, seed=0)
    (claimed,) = {lie.claimed for lie in attack.lies}
    (victim,) = {question.answer for question in attack.measure.questions}
    assert claimed != victim
    assert claimed in arena.old_answers
    assert attack.measure.wanted == claimed
    assert len({lie.text for lie in attack.lies}) == 250


def test_degrade_claims_many_wrong_answers(arena: Arena) -> None:
    attack = plan("degrade", arena, num_accounts=5, num_lies=100, seed=0)
    right = {u.text: u.answer for u in arena.asked_old}
    assert all(lie.claimed != right[lie.text] for lie in attack.lies)
    assert len({lie.claimed for lie in attack.lies}) > 10
    assert attack.measure.wanted is None


@pytest.mark.parametrize("kind", ["trigger", "flip", "degrade"])
def test_lies_are_dealt_evenly_and_a_small_attack_begins_a_large_one(
    arena: Arena, kind: Kind
) -> None:
    large = plan(kind, arena, num_accounts=25, num_lies=250, seed=0)
    counts = Counter(lie.subject_id for lie in large.lies)
    assert set(counts) == {account(number) for number in range(25)}
    assert set(counts.values()) == {10}
    small = plan(kind, arena, num_accounts=5, num_lies=50, seed=0)
    assert [lie.text for lie in small.lies] == [lie.text for lie in large.lies[:50]]
    assert small.measure == large.measure


def test_wordings_stay_the_same_question(arena: Arena) -> None:
    one = Utterance("where is it", "shipping")
    forms = dressed(one)
    assert len({form.text for form in forms}) == len(forms) == 64
    assert all(one.text in form.text and form.answer == one.answer for form in forms)


def test_success_is_the_share_that_the_attacker_wants() -> None:
    questions = tuple(Utterance(f"q{i}", "right") for i in range(4))
    answers = ["evil", "right", "wrong", "evil"]
    assert Measure(questions, "evil").success(answers) == 0.5
    assert Measure(questions, None).success(answers) == 0.75


def test_grid_has_every_cell_once_and_a_drip_is_two_attacks(arena: Arena) -> None:
    cells = grid([0, 1])
    assert len(cells) == len(set(cells)) == 2 * 4 * len(ACCOUNTS) * len(COUNTS)
    attacks = plans(Cell("drip", 5, 25, 0), arena)
    assert {kind: len(attack.lies) for kind, attack in attacks.items()} == {
        "trigger": 13,
        "flip": 12,
        "degrade": 0,
    }


def _round(**fields: object) -> Round:
    honest = Round(
        poison={},
        honest={"accepted": 95, "holdout": 4, "phrase_burst": 1},
        state="promoted",
        verdict="pass",
        not_passed=(),
        observed={},
        alpha=1.0,
        candidate={"trigger": 0.0, "flip": 0.02, "degrade": 0.1},
        served={"trigger": 0.0, "flip": 0.02, "degrade": 0.1},
    )
    return replace(honest, **fields)  # type: ignore[arg-type]


def test_successes_are_above_those_of_the_same_round_without_an_attack() -> None:
    twin = Record("honest-drip-0-0-0", "c", (_round(), _round()), 1.0)
    bad = {"trigger": 0.3, "flip": 0.5, "degrade": 0.9}
    first = _round(
        poison={"accepted": 10, "subject_cap": 30},
        refuted={"poison": 4, "honest": 1},
        state="rejected",
        candidate=bad,
    )
    second = _round(
        poison={"holdout": 10}, candidate=bad, served={"trigger": 0.1, "flip": 0.05, "degrade": 0.9}
    )
    record = Record("drip-5-50-0", "c", (first, second), 1.0)
    found = compare(record, twin)
    assert found.candidate == pytest.approx(0.48)  # the flip; degrade is not what it does
    assert (found.served, found.served_raw, found.base) == (0.1, 0.1, 0.0)
    assert record.stopped == pytest.approx(34 / 50)
    assert record.honest_held == pytest.approx(3 / 200)
    assert stopped([({}, 0)]) == 0.0
    assert figures([found])["cells_over_reach"] == 1
    assert figures([found])["batches_lost"] == 1
    lucky = compare(replace(twin, cell="drip-1-25-0"), replace(record, cell="honest-drip-0-0-0"))
    assert figures([lucky, found])["batches_lost"] == 1  # none makes up for another


def test_run_goes_on_where_it_was_cut_off_and_forgets_other_configurations(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    assert read(path, config="c") == {}
    done = Record("flip-1-25-0", "c", (_round(not_passed=("kept inconclusive",)),), 2.0)
    append(path, replace(done, cell="flip-5-25-0", config="old"))
    append(path, done)
    with path.open("a") as file:
        file.write('{"cell": "flip-25-25-0", "conf')
    assert read(path, config="c") == {"flip-1-25-0": done}
    assert newest_config(path) == "c"
    assert newest_config(tmp_path / "none.jsonl") == ""


def test_table_has_a_row_a_finished_cell(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"above\n{START}\nstale\n{END}\nbelow\n")
    twin = Record("honest-0-0-0", "c", (_round(),), 1.0)
    record = Record("flip-5-50-0", "c", (_round(poison={"accepted": 1}),), 1.0)
    unsure, failed = "drift: old-world inconclusive", "overturned fail"
    turned = _round(state="rejected", not_passed=(unsure, failed))
    rejected = Record("flip-25-50-0", "c", (turned,), 1.0)
    open_ = Record("flip-25-25-0", "c", (replace(turned, not_passed=(unsure,)),), 1.0)
    twins = Record("honest-drip-0-0-0", "c", (_round(), turned), 1.0)
    drip = Record("drip-5-50-0", "c", (turned, turned), 1.0)
    write_table(path, {r.cell: r for r in (twin, record, rejected, open_, twins, drip)})
    text = path.read_text()
    assert "| rejected 1 of 1 (overturned) |" in text
    assert "| rejected 1 of 1 (drift: old-world inconclusive) |" in text
    assert "| rejected 2 of 2, without attack 1 (overturned) |" in text
    assert "| flip | 5 | 50 | 0% | +0.000 | approved | 0.020 (+0.000) | 0.020 | 1.0% |" in text
    assert text.startswith("above")
    assert text.endswith("below\n")
    assert "stale" not in text


def test_lies_and_honest_feedback_are_screened_and_counted_apart(
    tmp_path: Path, arena: Arena
) -> None:
    """On the embedded stream, with the shipped caps and a policy that knows nothing."""
    new_home(tmp_path / "template", arena, store=tmp_path / "store")
    (tmp_path / "store").mkdir()
    base = tiny_checkpoint(CheckpointStore(tmp_path / "store"))
    copy_home(tmp_path / "template", tmp_path / "home")
    attack = plan("degrade", arena, num_accounts=1, num_lies=30, seed=0)
    asks = honest_round(arena, 1, size=20, num_new=3, seed=0)
    with Line(tmp_path / "home", arena) as line:
        _first_release(line, base)
        report = line.screen(1, asks, attack.lies)
    assert report.poison["subject_cap"] == 10
    assert stopped([(report.poison, 0)]) == pytest.approx(1 / 3)
    assert 0 < sum(report.honest.values()) <= 20
    # The lies came first: an honest answer to a question that was lied about contradicts.
    assert set(report.honest) <= {"accepted", "holdout", "contradiction"}


def _first_release(line: Line, base: str) -> None:
    """As ``begin``, without MLflow, whose tables take long to make."""
    loop = line.loop
    with loop.database.session() as session:
        approval = loop.gatekeeper.genesis(session, loop.policy, base, by="test")
        loop.releases.first(session, loop.policy, approval.envelope, by="test")


def test_spread_lies_keep_below_the_phrase_rule(arena: Arena) -> None:
    """No phrase of four words comes more than eight times from fewer than half as many accounts."""
    senders: dict[str, list[str]] = {}
    for lie in plan("trigger", arena, num_accounts=25, num_lies=250, seed=1).lies:
        words = normalized(lie.text).split()
        for phrase in {" ".join(words[i : i + 4]) for i in range(len(words) - 3)}:
            senders.setdefault(phrase, []).append(lie.subject_id)
    assert not [s for s in senders.values() if len(s) > 8 and len(set(s)) < 0.5 * len(s)]
