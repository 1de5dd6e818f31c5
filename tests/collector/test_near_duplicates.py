"""Typos fall to the cluster they came from, other questions do not, and nothing ever moves."""

import random
import string
import tracemalloc

import pytest
from sqlalchemy import func, select

from collector.screening.clusters import cluster_of, is_holdout, normalized
from collector.screening.near_duplicates import MAX_FIRSTS, ClusterIndex, sketch_of
from collector.tables import ClusterBandRow, ClusterRow
from tacit.contracts import Correction, EventStatus, FeedbackEvent
from tacit.database import Database
from tacit.demo.helpdesk import HelpdeskSizes, helpdesk_world
from tests.builders import event, interaction
from tests.collector.conftest import MakeRoom

QUESTIONS = [
    "how do i change my pin at the machine",
    "how do i change my address in the profile",
    "where is the parcel that was sent on monday",
    "when does the shop in the old town open",
    "why was my card charged twice this month",
    "why was my card declined at the till today",
    "can i pause the plan while i am away",
    "can i cancel the order i placed an hour ago",
    "the laptop does not start since the update",
    "please send me a copy of the last invoice",
]


def misspelt(text: str, rng: random.Random) -> str:
    """``text`` with one letter changed, left out, doubled or swapped with the next."""
    at = rng.randrange(len(text) - 1)
    other = rng.choice(string.ascii_lowercase)
    change = rng.choice([other, "", text[at] * 2, text[at + 1] + text[at]])
    end = at + 2 if len(change) == 2 and change[0] == text[at + 1] else at + 1
    return text[:at] + change + text[end:]


def assign(database: Database, index: ClusterIndex, *prompts: str) -> list[str]:
    with database.session() as session:
        return index.assign(session, [normalized(prompt) for prompt in prompts])


def new_index(similarity: float = 0.7) -> ClusterIndex:
    return ClusterIndex(policy="default", similarity=similarity)


def test_typos_fall_to_the_cluster_they_came_from(database: Database) -> None:
    rng = random.Random(0)
    index = new_index()
    firsts = assign(database, index, *QUESTIONS)
    assert firsts == [cluster_of(question) for question in QUESTIONS]
    found = total = 0
    for question, first in zip(QUESTIONS, firsts, strict=True):
        typos = [misspelt(question, rng) for _ in range(30)]
        found += assign(database, index, *typos).count(first)
        total += len(typos)
    assert found / total > 0.95


def test_questions_that_share_their_form_stay_apart(sqlite_database: Database) -> None:
    assert len(set(assign(sqlite_database, new_index(), *QUESTIONS))) == len(QUESTIONS)


def test_short_prompts_are_clusters_of_their_own(sqlite_database: Database) -> None:
    prompts = ["yes please", "yes pleas", "no thank you", "no thank yon"]
    assert assign(sqlite_database, new_index(), *prompts) == [cluster_of(p) for p in prompts]
    assert sketch_of("no thank you") is None
    assert sketch_of("no i thank you") is not None


def test_how_alike_is_a_setting(sqlite_database: Database) -> None:
    pair = ("where is the parcel that was sent on monday", "where is the parcel sent on monday")
    assert len(set(assign(sqlite_database, new_index(0.6), *pair))) == 1
    strict = ClusterIndex(policy="another", similarity=1.0)
    assert len(set(assign(sqlite_database, strict, *pair))) == 2


def test_a_prompt_never_moves_whatever_comes_later_and_whoever_looks(database: Database) -> None:
    rng = random.Random(1)
    prompts = [misspelt(misspelt(q, rng), rng) for q in QUESTIONS for _ in range(12)]
    rng.shuffle(prompts)
    index = new_index()
    first = {p: assign(database, index, p)[0] for p in prompts}
    restarted = dict(zip(prompts, assign(database, new_index(), *prompts), strict=True))
    assert restarted == first
    assert dict(zip(prompts, assign(database, index, *prompts), strict=True)) == first


def test_one_at_a_time_and_all_at_once_give_the_same(sqlite_database: Database) -> None:
    rng = random.Random(2)
    prompts = [misspelt(q, rng) for q in QUESTIONS for _ in range(6)]
    one_by_one = [assign(sqlite_database, new_index(), p)[0] for p in prompts]
    other = ClusterIndex(policy="another", similarity=0.7)
    assert assign(sqlite_database, other, *prompts) == one_by_one


def test_what_was_rolled_back_is_forgotten(sqlite_database: Database) -> None:
    index = new_index()
    with sqlite_database.session() as session:
        index.assign(session, [normalized(QUESTIONS[0])])
        session.rollback()
    index.forget()
    typo = misspelt(QUESTIONS[0], random.Random(3))
    assert assign(sqlite_database, index, typo) == [cluster_of(typo)]
    assert assign(sqlite_database, index, QUESTIONS[0]) == [cluster_of(typo)]


def test_a_long_preamble_fills_no_band_and_hides_no_flood(sqlite_database: Database) -> None:
    preamble = "please read the ticket below and answer in the tone of our brand with care "
    rng = random.Random(4)
    words = sorted({w for u in helpdesk_world(sizes=_SMALL).old_train for w in u.text.split()})
    tickets = [" ".join(rng.choices(words, k=25)) for _ in range(400)]
    index = new_index()
    clusters = assign(sqlite_database, index, *[preamble + ticket for ticket in tickets])
    assert len(set(clusters)) > 390
    with sqlite_database.reader() as session:
        sizes = session.scalars(
            select(func.count(ClusterBandRow.number)).group_by(ClusterBandRow.band)
        ).all()
        assert session.scalar(select(func.count()).select_from(ClusterRow)) == len(set(clusters))
    assert max(sizes) == MAX_FIRSTS
    last = preamble + tickets[-1]
    typos = [misspelt(last, rng) for _ in range(50)]
    assert assign(sqlite_database, new_index(), *typos).count(clusters[-1]) >= 45


_SMALL = HelpdeskSizes(200, 10, 10, 400, 10, 10)


def test_prompts_of_the_demo_hardly_collapse(sqlite_database: Database) -> None:
    prompts = [utterance.text for utterance in helpdesk_world(sizes=_SMALL).new_stream]
    clusters = assign(sqlite_database, new_index(), *prompts)
    assert max(clusters.count(cluster) for cluster in clusters) < 20
    assert len(set(clusters)) > 0.85 * len(prompts)


def flood(prompt: str, count: int, *, seed: int = 0) -> list[FeedbackEvent]:
    """Corrections of ``count`` people who each misspell ``prompt`` in a way of their own."""
    rng = random.Random(seed)
    return [
        event(
            f"e-{seed}-{number}",
            subject_id=f"u-{seed}-{number}",
            interaction=interaction(misspelt(prompt, rng) if number else prompt),
            feedback=Correction(completion="refund"),
        )
        for number in range(count)
    ]


def test_a_flood_of_typos_meets_the_cap_of_one_cluster(make: MakeRoom) -> None:
    room = make(max_events_per_cluster=5)
    room.screen(*flood(QUESTIONS[0], 60))
    assert 5 <= room.store.counts("default")[EventStatus.ACCEPTED] <= 10
    assert room.store.reasons("default")["cluster_cap"] >= 50


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_are_on_one_side_of_the_split(make: MakeRoom, seed: int) -> None:
    room = make(holdout_share=0.5, max_events_per_cluster=1_000)
    question = QUESTIONS[seed]
    room.screen(*flood(question, 40, seed=seed))
    side = "holdout" if is_holdout(cluster_of(question), share=0.5) else "accepted"
    fates = [room.became(f"e-{seed}-{number}")[0] for number in range(40)]
    assert fates.count(side) >= 38


def test_long_prompts_are_not_kept_in_memory(sqlite_database: Database) -> None:
    """Twenty thousand are remembered, and each may have a megabyte."""
    found = new_index()
    with sqlite_database.session() as session:
        prompts = [f"{number} {'please find my parcel ' * 2_000}" for number in range(20)]
        tracemalloc.start()
        found.assign(
            session, [normalized(prompt + "x" * number) for number, prompt in enumerate(prompts)]
        )
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < sum(map(len, prompts)) / 4
