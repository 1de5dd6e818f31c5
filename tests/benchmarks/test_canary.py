"""The simulated canaries: what is drawn, what is counted, and that blindness to subjects shows."""

from functools import partial
from itertools import islice
from statistics import fmean

from benchmarks.canary import (
    NEVER,
    REQUIRED,
    World,
    _figures,
    runs,
    until_rollback,
)
from benchmarks.canary_statistics import Events, Mixture, Votes


def test_feedback_has_the_success_and_the_share_it_says() -> None:
    world = World(loss=0.3, share=0.25, per_subject=4, alike=0.5)
    sent = list(islice(world.feedback(1), 20_000))
    canary = [success for arm, _, success in sent if arm == "canary"]
    champion = [success for arm, _, success in sent if arm == "champion"]
    assert abs(len(canary) / len(sent) - 0.25) < 0.03
    assert abs(fmean(champion) - fmean(canary) - 0.3) < 0.05
    assert 4_000 < len({subject for _, subject, _ in sent}) < 6_000


def test_much_worse_is_seen_by_each_statistic_and_equal_is_not_seen() -> None:
    for make in (Votes, Events, Mixture):
        assert until_rollback(make, World(loss=0.5), 2_000, 0) < 200
        assert until_rollback(make, World(), 100, 0) == NEVER


def test_events_of_one_subject_taken_for_many_look_like_proof() -> None:
    world = World(per_subject=10, alike=0.6)
    wrong = {
        make: fmean(until_rollback(make, world, 300, seed) < NEVER for seed in range(60))
        for make in (Votes, Events)
    }
    assert wrong[Votes] <= 0.1 < wrong[Events]


def test_figures_are_shares_and_medians() -> None:
    assert _figures("x_false_rollback", [NEVER, 5]) == {"x_false_rollback": 0.5}
    found = _figures("x_feedback_to_rollback", [NEVER, 5, 7])
    assert found == {"x_feedback_to_rollback": 7, "x_power_to_rollback": 2 / 3}
    assert _figures("x_feedback_to_rollback", [NEVER])["x_feedback_to_rollback"] is None


def test_what_serve_reports_is_simulated_often_enough() -> None:
    found = runs()
    assert all(found[name][1] >= 2_000 for name in REQUIRED if "false" in name)
    assert isinstance(found["canary_feedback_to_rollback"][0], partial)
