"""``tacit value``: estimates from recorded interactions and feedback, and from a log in a file."""

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from collector.ingest import interactions_topic
from collector.streams.embedded import EmbeddedStream
from tacit.cli import app
from tacit.config import load_settings
from tacit.contracts import FeedbackEvent, Interaction, Outcome, Rating, RatingScale, ValueReport
from tacit.database import Database
from tacit.errors import EvaluationError, InvalidInputError, NotFoundError
from tacit.imports.bandit import read_bandit_log
from tacit.keys import KeyStore, Scope
from tacit.values import recorded_values
from tests.builders import MOMENT, event, interaction, recorded, user
from tests.collector.conftest import Room, make_room
from tests.tacit.importing import import_service

SHARE = 0.25
OLD, NEW = "default@aaaaaaaaaaaa", "default@bbbbbbbbbbbb"


class Traffic:
    """A rollout of ``new`` beside ``old``, and feedback on each answer."""

    def __init__(self, *, seed: int = 0, start: datetime = MOMENT) -> None:
        self.draw = random.Random(seed)
        self.moment = start
        self.interactions: list[Interaction] = []
        self.events: list[FeedbackEvent] = []

    def answer(
        self,
        *,
        good: bool | float,
        subject: str | None = None,
        source: str = "helpdesk",
        **how: Any,
    ) -> None:
        number = f"{len(self.interactions)}-{self.draw.getrandbits(32):x}"
        self.moment += timedelta(seconds=1)
        said = {"subject_id": subject or f"u-{number}", "occurred_at": self.moment}
        prompt = user(f"{number}: {self.draw.getrandbits(64):x}")
        self.interactions.append(
            recorded(f"i-{number}", prompt=prompt, source=source, **said, **how)
        )
        feedback = Outcome(metric="resolved", value=good)
        self.events.append(
            event(f"e-{number}", feedback=feedback, interaction_id=f"i-{number}", source=source,
                  **said)
        )  # fmt: skip

    def rollout(self, number: int, *, old: str, new: str, rates: tuple[float, float]) -> "Traffic":
        for _ in range(number):
            is_new = self.draw.random() < SHARE
            self.answer(
                good=self.draw.random() < rates[is_new],
                policy_version=new if is_new else old,
                arm="canary" if is_new else "champion",
                arm_probability=SHARE if is_new else 1 - SHARE,
            )
        return self

    def full(self, number: int, version: str) -> "Traffic":
        for _ in range(number):
            self.answer(good=True, policy_version=version, arm="champion", arm_probability=1.0)
        return self


@pytest.fixture
def room(tmp_path: Path, database: Database) -> Iterator[Room]:
    stream = EmbeddedStream(tmp_path / "stream.db")
    made = make_room(database, stream, load_settings(home=tmp_path))
    yield made
    made.ingestor.close()
    stream.close()


def put(room: Room, traffic: Traffic) -> None:
    records = [("k", one.model_dump_json().encode()) for one in traffic.interactions]
    room.stream.append(interactions_topic(room.settings), records)
    room.screen(*traffic.events)


def test_newest_rollout_is_estimated_and_what_came_before_left_out(room: Room) -> None:
    traffic = Traffic().rollout(60, old="default@0", new=OLD, rates=(0.0, 0.0)).full(20, OLD)
    started = traffic.moment
    traffic.rollout(200, old=OLD, new=NEW, rates=(0.5, 0.9))
    ended = traffic.moment
    put(room, traffic.full(20, NEW))
    report = recorded_values(room.database, "default")
    assert [value.arm for value in report.arms] == [OLD, NEW]
    old, new = report.arms
    of_new = [i for i in traffic.interactions[80:280] if i.policy_version == NEW]
    assert new.num_interactions == len(of_new)
    assert report.num_interactions == report.num_clusters == 200
    assert (report.since, report.until) == (started + timedelta(seconds=1), ended)
    assert old.doubly_robust.ci_high < new.doubly_robust.ci_low
    assert old.snips.value == pytest.approx(0.5, abs=0.1)
    assert new.snips.value == pytest.approx(0.9, abs=0.1)


def test_one_subject_is_one_draw_and_several_reports_are_their_mean(room: Room) -> None:
    traffic = Traffic().rollout(12, old=OLD, new=NEW, rates=(1.0, 1.0))
    for version, arm in ((OLD, "champion"), (NEW, "canary")):
        for name in ("ada", "bob"):
            for _ in range(3):
                traffic.answer(
                    good=False,
                    subject=f"{name}-{arm}",
                    policy_version=version,
                    arm=arm,
                    arm_probability=0.5,
                )
    first = traffic.events[0]
    rating = Rating(value=1, scale=RatingScale(low=1, high=5))
    traffic.events.append(
        event("e-more", feedback=rating, interaction_id=first.interaction_id, subject_id="u-other")
    )
    put(room, traffic)
    report = recorded_values(room.database, "default")
    assert (report.num_interactions, report.num_clusters) == (24, 16)
    (old,) = [value for value in report.arms if value.arm == OLD]
    num_old = old.num_interactions
    assert traffic.interactions[0].policy_version == OLD
    assert old.observed == pytest.approx((num_old - 6 - 0.5) / num_old)
    only = recorded_values(room.database, "default", metric="resolved").arms[0]
    assert only.observed == pytest.approx((num_old - 6) / num_old)


def test_what_another_product_says_of_an_answer_does_not_count(room: Room) -> None:
    traffic = Traffic().rollout(60, old=OLD, new=NEW, rates=(1.0, 1.0))
    foreign = [
        event(
            f"e-foreign-{number}",
            source="intruder",
            subject_id=f"x-{number}",
            feedback=Outcome(metric="resolved", value=False),
            interaction_id=about.interaction_id,
            interaction=interaction(),
        )
        for number, about in enumerate(traffic.interactions[:30])
    ]
    room.screen(*foreign)  # before what they name is there, so that screening cannot know
    put(room, traffic)
    report = recorded_values(room.database, "default")
    assert [value.observed for value in report.arms] == [1.0, 1.0]


def test_without_shared_traffic_nothing_is_estimated(room: Room) -> None:
    with pytest.raises(NotFoundError, match="got none"):
        recorded_values(room.database, "default")
    put(room, Traffic().full(30, OLD))
    with pytest.raises(NotFoundError, match="more than one policy"):
        recorded_values(room.database, "default")
    put(room, Traffic(seed=1).rollout(40, old=OLD, new=NEW, rates=(0.5, 0.5)))
    assert recorded_values(room.database, "default").num_interactions == 40
    with pytest.raises(NotFoundError):
        recorded_values(room.database, "other")
    with pytest.raises(NotFoundError):
        recorded_values(room.database, "default", source="crm")
    with pytest.raises(NotFoundError):
        recorded_values(room.database, "default", metric="tone")


def test_api_and_command_answer_alike(tmp_path: Path, sqlite_database: Database) -> None:
    with import_service(tmp_path, sqlite_database) as service:
        traffic = Traffic().rollout(80, old=OLD, new=NEW, rates=(0.4, 0.8))
        room = make_room(sqlite_database, service.stream, service.settings)
        put(room, traffic)
        room.ingestor.close()
        keys = KeyStore(sqlite_database)
        reader = keys.create("reader", scopes={Scope.READ})
        words = ["value", "--url", service.remote.url, "--home", str(tmp_path)]
        done = CliRunner().invoke(app, [*words, "--key", reader, "--json"])
        assert done.exit_code == 0, done.output
        report = ValueReport.model_validate_json(done.stdout)
        assert report == recorded_values(sqlite_database, "default")
        shown = CliRunner().invoke(app, [*words, "--key", reader])
        assert "80 answers" in shown.stdout
        assert f"{report.arms[1].doubly_robust.value:.3f} [" in shown.stdout
        refused = CliRunner().invoke(app, [*words, "--key", service.key])
        assert refused.exit_code == 1
        assert "read" in str(refused.exception)
        bound = keys.create("crm", scopes={Scope.READ}, source="crm")
        nothing = CliRunner().invoke(app, [*words, "--key", bound])
        assert "feedback on answers" in str(nothing.exception)


def log_file(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(number: int) -> list[dict[str, Any]]:
    draw = random.Random(2)
    made = []
    for _ in range(number):
        model = "large" if draw.random() < 0.3 else "small"
        made.append(
            {
                "q": f"What is {draw.randint(1, 99)} + 1?",
                "model": model,
                "p": {"large": 0.3, "small": 0.7}[model],
                "ok": draw.random() < (0.9 if model == "large" else 0.3),
            }
        )
    return made


MAP = ("prompt=q", "policy_version=model", "arm_probability=p", "label=ok")


def test_log_in_a_file_is_estimated_without_a_service(tmp_path: Path) -> None:
    path = log_file(tmp_path / "log.jsonl", *rows(300))
    words = ["value", "--log", str(path), "--json"]
    done = CliRunner().invoke(app, [*words, *(w for o in MAP for w in ("--map", o))])
    assert done.exit_code == 0, done.output
    large, small = ValueReport.model_validate_json(done.stdout).arms
    assert (large.arm, small.arm) == ("large", "small")
    assert large.doubly_robust.ci_low < 0.9 < large.doubly_robust.ci_high
    assert small.doubly_robust.ci_low < 0.3 < small.doubly_robust.ci_high


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "x", "model": "m", "ok": True}, "arm_probability in every row; got None on line 2"),
        ({"q": "x", "model": "m", "p": "half", "ok": True}, "got 'half' on line 2"),
        ({"q": "x", "p": 0.5, "ok": True}, "policy_version in every row; got none on line 2"),
        ({"q": "x", "model": "m", "p": 0.5}, "label in every row; got None on line 2"),
        ({"q": 7, "model": "m", "p": 0.5, "ok": 1}, "got int on line 2"),
    ],
)
def test_line_that_cannot_be_used_is_named(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = log_file(tmp_path / "log.jsonl", *rows(1), row)
    with pytest.raises(InvalidInputError, match=message):
        read_bandit_log(path, MAP)


def test_probability_of_zero_is_refused(tmp_path: Path) -> None:
    path = log_file(tmp_path / "log.jsonl", *rows(9), {**rows(1)[0], "p": 0})
    words = ["value", "--log", str(path), *(w for o in MAP for w in ("--map", o))]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, EvaluationError)
    assert "0.0 for number 10" in str(done.exception)


@pytest.mark.parametrize("words", [["--map", "label=ok"], ["--log", __file__, "--source", "crm"]])
def test_options_of_the_other_kind_are_refused(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["value", *words])
    assert isinstance(done.exception, InvalidInputError)
