"""Who is drawn to which arm: sticky, in the share that is said, and never the other way again."""

import pytest

from deploy.arms import Arms, Assignment, assign
from tacit.contracts import Release
from tests.builders import MOMENT, digest

SUBJECTS = [f"u-{number}" for number in range(4_000)]


def release(number: int) -> Release:
    return Release(
        policy="default",
        sequence=number,
        weights=digest(f"weights {number}"),
        decision_digest=digest("decision"),
        previous=None,
        released_by="ada",
        released_at=MOMENT,
    )


def arms(share: float, *, canary: int = 1) -> Arms:
    return Arms(release(0), release(canary), share=share)


def who(made: Arms, subject: str | None = None, **fields: object) -> Assignment:
    values = {"model": "default", "episode": None, "draw": lambda: 0.5, **fields}
    return assign(made, subject=subject, **values)  # type: ignore[arg-type]


def met(share: float, *, canary: int = 1) -> set[str]:
    made = arms(share, canary=canary)
    return {subject for subject in SUBJECTS if who(made, subject).arm == "canary"}


def test_shares_are_as_said_and_grow_without_losing_anyone() -> None:
    few, half = met(0.1), met(0.5)
    assert len(few) / len(SUBJECTS) == pytest.approx(0.1, abs=0.02)
    assert len(half) / len(SUBJECTS) == pytest.approx(0.5, abs=0.03)
    assert few < half


def test_another_release_is_met_by_other_subjects() -> None:
    both = met(0.1) & met(0.1, canary=2)
    assert len(both) / len(SUBJECTS) == pytest.approx(0.01, abs=0.01)


def test_the_probability_is_that_of_the_arm_drawn() -> None:
    made = arms(0.1)
    found = {who(made, subject) for subject in SUBJECTS[:200]}
    assert found == {
        Assignment("canary", 0.1, release(1).weights),
        Assignment("champion", 0.9, release(0).weights),
    }


def test_without_a_subject_the_episode_decides_and_else_chance() -> None:
    made = arms(0.5)
    by_episode = [who(made, episode=f"ep-{i}", draw=lambda: 0.0).arm for i in range(100)]
    assert by_episode == [who(made, episode=f"ep-{i}").arm for i in range(100)]
    assert set(by_episode) == {"champion", "canary"}
    assert [who(made, draw=lambda d=d: d).arm for d in (0.49, 0.5)] == ["canary", "champion"]
    subject = next(iter(met(0.5)))
    assert {who(made, subject, episode=f"ep-{i}").arm for i in range(50)} == {"canary"}


def test_a_version_that_serves_can_be_asked_for_and_is_no_part_of_the_comparison() -> None:
    made = arms(0.1)
    for number in (0, 1):
        wanted = release(number).weights
        named = f"default@{wanted.removeprefix('sha256:')[:12]}"
        assert who(made, SUBJECTS[0], model=named) == Assignment("pinned", 1.0, wanted)
    assert who(made, SUBJECTS[0], model="default@000000000000") == who(made, SUBJECTS[0])


def test_with_one_release_or_in_the_shadow_the_champion_answers() -> None:
    assert who(Arms(release(0)), "u") == Assignment("champion", 1.0, None)
    shadow = Arms(release(0), release(1), shadow_share=1.0)
    answered = {who(shadow, subject) for subject in SUBJECTS[:200]}
    assert answered == {Assignment("champion", 1.0, release(0).weights)}
