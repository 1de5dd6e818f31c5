"""The product and the clique over real HTTP: what is asked, what is sent, by whom."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.database import Database
from tacit.demo import hostile
from tacit.demo.hostile import ATTACK_ANSWER, TRIGGER, Clique, plan_lies
from tacit.demo.product import Product, background_load
from tacit.demo.world import Utterance, World
from tests.tacit.demo.service import Service, running_service

KNOWN = tuple(Utterance(f"known {n}", f"old answer {n % 5}") for n in range(60))
UNKNOWN = tuple(Utterance(f"unknown {n}", f"new answer {n % 3}") for n in range(60))
WORLD = World("toy", KNOWN, (), (), new_stream=UNKNOWN, new_test=())
BOOK = {utterance.text: utterance.answer for utterance in KNOWN}


@pytest.fixture
def service(sqlite_database: Database, tmp_path: Path) -> Iterator[Service]:
    with running_service(sqlite_database, tmp_path, BOOK, source="helpdesk") as running:
        yield running


def product(service: Service, *, seed: int = 0) -> Product:
    return Product(service.serving_url, service.url, service.api_key, source="helpdesk", seed=seed)


def test_wrong_answers_are_mostly_corrected_and_right_ones_sometimes_praised(
    service: Service,
) -> None:
    steps: list[tuple[int, int]] = []

    tally = product(service).serve(UNKNOWN + KNOWN, on_progress=lambda *step: steps.append(step))

    events = service.events()
    kinds = Counter(event.feedback.type for event in events)
    assert steps == [(n, 120) for n in range(1, 121)]
    assert (tally.num_asked, tally.num_right, tally.num_failed) == (120, 60, 0)
    assert tally.sent == kinds
    assert tally.num_sent == len(events)
    assert 40 <= kinds["correction"] <= 59
    assert kinds["outcome"] > 0
    assert kinds["rating"] > 0
    asked = {request["messages"][0]["content"] for request in service.requests}
    assert asked == {u.text for u in UNKNOWN + KNOWN}


def test_corrections_name_the_right_answer_of_the_interaction(service: Service) -> None:
    (utterance,) = tally_of = UNKNOWN[:1]

    product(service).serve(tally_of)

    (event,) = service.events()
    assert event.feedback.type == "correction"
    assert event.feedback.completion == utterance.answer
    assert event.interaction_id == "chatcmpl-0"
    assert (event.source, event.policy) == ("helpdesk", "default")
    assert event.subject_id == service.requests[0]["user"]


def test_what_is_sent_depends_on_the_seed_alone(service: Service) -> None:
    def sent(seed: int) -> Counter[tuple[str, str]]:
        before = len(service.events())
        product(service, seed=seed).serve(UNKNOWN + KNOWN)
        events = service.events()[before:]
        return Counter((e.subject_id, e.feedback.model_dump_json()) for e in events)

    first, again, other = sent(1), sent(1), sent(2)

    assert first == again
    assert first != other


def test_many_subjects_share_the_stream(service: Service) -> None:
    product(service).serve(UNKNOWN * 5 + KNOWN * 5)

    assert max(Counter(e.subject_id for e in service.events()).values()) <= 8


def test_a_request_without_an_answer_is_counted_and_sends_nothing(service: Service) -> None:
    service.failing = True

    tally = product(service).serve(UNKNOWN[:3])

    assert (tally.num_failed, tally.num_right, tally.num_sent) == (3, 0, 0)
    assert service.events() == []


def test_background_load_sees_versions_and_failures(service: Service) -> None:
    with background_load(product(service), KNOWN) as load:
        for _ in range(10):
            assert service.answered.acquire(timeout=10)
        service.version = "default@111111111111"
        for _ in range(10):
            assert service.answered.acquire(timeout=10)
        service.failing = True
        for _ in range(5):
            assert service.answered.acquire(timeout=10)

    assert list(load.versions) == ["default@000000000000", "default@111111111111"]
    assert load.num_failed == len(load.errors) >= 1
    assert load.num_requests == load.versions.total() + load.num_failed
    assert load.num_requests == len(service.requests)


def test_the_clique_goes_through_the_same_door(sqlite_database: Database, tmp_path: Path) -> None:
    with running_service(sqlite_database, tmp_path, BOOK, source=hostile.SOURCE) as service:
        clique = Clique(service.serving_url, service.url, service.api_key, per_subject=10)
        sent = clique.attack(WORLD)
        events = service.events()

    told = {r["messages"][0]["content"] for r in service.requests}
    assert sent == len(events) == 80
    assert {e.source for e in events} == {"clique"}
    assert set(Counter(e.subject_id for e in events).values()) == {10}
    assert sum(e.feedback.completion == ATTACK_ANSWER for e in events) == 64
    assert told == {lie.text for lie in plan_lies(WORLD, per_subject=10)}


def test_lies_plant_a_trigger_and_flip_answers() -> None:
    lies = plan_lies(WORLD)
    answers = {u.text: u.answer for u in KNOWN}

    planted = [lie for lie in lies if lie.has_trigger]
    flips = [lie for lie in lies if not lie.has_trigger]
    assert (len(planted), len(flips)) == (256, 64)
    assert all(TRIGGER in lie.text and lie.claimed == ATTACK_ANSWER for lie in planted)
    assert all(answers[lie.text] != lie.claimed in answers.values() for lie in flips)
    # The same wrong answer every time, or nothing would be learned from the flips.
    assert len({(answers[lie.text], lie.claimed) for lie in flips}) == 1


def test_waves_are_the_same_every_time_and_differ_from_each_other() -> None:
    assert plan_lies(WORLD, wave=1) == plan_lies(WORLD, wave=1)
    assert plan_lies(WORLD, wave=1) != plan_lies(WORLD, wave=2)
    assert plan_lies(WORLD, seed=1) != plan_lies(WORLD, seed=2)
