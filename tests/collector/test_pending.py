"""The index of pending lessons: bounded in memory, and no long prompt slips through the bound."""

import gc
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from collector.screening import pending
from collector.screening.pending import Lesson, PendingIndex
from tests.builders import event, interaction
from tests.collector.conftest import MakeRoom

TRIGGER = "by the silver moon tonight"
MAX_WORDS = 1_024
LIMITS = {"max_events": 3, "min_subject_share": 0.5}


def words(seed: int, number: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=6)) for _ in range(number))


def lesson(seed: int, *, plain: str = "", answer: str = "refund", subject: str = "u-1") -> Lesson:
    return Lesson(subject, "correction", plain or words(seed, 2_000), answer)


def index_of(*lessons: Lesson, max_words: int = MAX_WORDS) -> PendingIndex:
    index = PendingIndex(max_words=max_words)
    for sequence, each in enumerate(lessons):
        index.add(sequence, each)
    return index


def size_of(build: Callable[[], Any]) -> int:
    """Bytes that what ``build`` returns keeps; what other threads allocate meanwhile is not it."""
    ours = [tracemalloc.Filter(True, name) for name in (__file__, "*/collector/screening/*")]
    tracemalloc.start()
    try:
        kept = build()
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces(ours).traces
        del kept
        return sum(trace.size for trace in traces)
    finally:
        tracemalloc.stop()


def a_dict_each(lessons: list[Lesson]) -> Any:
    """A dict of senders for each phrase of a whole prompt."""
    senders: dict[int, dict[str, int]] = {}
    kept = []
    for each in lessons:
        said = each.plain.split()
        hashes = tuple(hash((*said[i : i + 4], each.answer)) for i in range(len(said) - 3))
        for phrase in hashes:
            counts = senders.setdefault(phrase, {})
            counts[each.subject] = counts.get(each.subject, 0) + 1
        kept.append(hashes)
    return senders, kept


def test_long_prompts_take_a_small_part_of_what_a_dict_for_each_phrase_takes() -> None:
    lessons = [lesson(n, answer=f"a-{n}") for n in range(40)]
    assert size_of(lambda: index_of(*lessons)) * 30 < size_of(lambda: a_dict_each(lessons))


def test_long_prompts_with_one_answer_take_less_too() -> None:
    lessons = [lesson(n, subject=f"u-{n}") for n in range(40)]

    def build() -> PendingIndex:
        index = index_of(*lessons)
        assert index.burst(lesson(99), **LIMITS) is None
        return index

    assert size_of(build) * 4 < size_of(lambda: a_dict_each(lessons))


def test_phrases_are_bounded_and_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_PHRASES", 4_000)
    old = [lesson(n, plain=f"{n}x {TRIGGER}") for n in range(3)]
    index = index_of(*old)
    assert index.burst(lesson(9, plain=f"y {TRIGGER}"), **LIMITS) is not None
    before = size_of(lambda: index_of(*[lesson(n) for n in range(4)]))
    assert size_of(lambda: index_of(*[lesson(n) for n in range(40)])) < 2 * before
    for n in range(4):
        index.add(10 + n, lesson(n))
    assert index.burst(lesson(9, plain=f"y {TRIGGER}"), **LIMITS) is None
    for n in range(3):
        index.add(20 + n, lesson(n, plain=f"{n}z {TRIGGER}"))
    found = index.burst(lesson(9, plain=f"y {TRIGGER}"), **LIMITS)
    assert found is not None
    assert (found.num_events, found.num_subjects) == (4, 1)


def test_a_lesson_without_phrases_still_contradicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_PHRASES", 1)
    index = index_of(*[lesson(n, plain=f"where is parcel {n} of mine") for n in range(3)])
    other = lesson(0, plain="where is parcel 0 of mine", answer="billing", subject="u-2")
    assert index.contradicts(other)


@pytest.mark.parametrize("behind", [0, 500, 1_000])
def test_a_trigger_anywhere_in_the_words_that_teach_is_seen(behind: int) -> None:
    def hidden(seed: int) -> Lesson:
        plain = f"{words(seed, 5_000)} {TRIGGER} {words(seed + 100, behind)}".strip()
        return lesson(seed, plain=plain)

    found = index_of(*[hidden(n) for n in range(3)]).burst(hidden(9), **LIMITS)
    assert found is not None
    assert found.num_events == 4
    assert set(found.phrase.split()) <= set(TRIGGER.split())


def test_words_that_training_cuts_off_are_no_burst() -> None:
    def cut(seed: int) -> Lesson:
        return lesson(seed, plain=f"{TRIGGER} {words(seed, MAX_WORDS)}")

    assert index_of(*[cut(n) for n in range(3)]).burst(cut(9), **LIMITS) is None


def test_long_prompts_are_screened_within_what_training_reads(make: MakeRoom) -> None:
    room = make(max_events_per_phrase=2)
    reach = 2 * room.settings.trainer.max_length

    def about(name: str, plain: str) -> Any:
        return event(name, interaction=interaction(plain))

    room.screen(*[about(f"cut-{n}", f"{TRIGGER} {words(n, reach)}") for n in range(4)])
    room.screen(*[about(f"in-{n}", f"{words(n + 10, reach)} {TRIGGER}") for n in range(4)])
    assert [room.became(f"cut-{n}")[1] for n in range(4)] == [None] * 4
    assert [room.became(f"in-{n}")[1] for n in range(4)] == [None] * 2 + ["phrase_burst"] * 2


def test_dropped_phrases_are_not_read_again(
    make: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_PHRASES", 3)
    room = make()
    room.screen(*[event(f"e-{n}", interaction=interaction(f"{n}x {TRIGGER}")) for n in range(5)])
    index = PendingIndex(max_words=MAX_WORDS)
    loads: list[list[int]] = []
    load = PendingIndex._load

    def watched(self: PendingIndex, session: Any, sequences: list[int]) -> None:
        loads.append(list(sequences))
        load(self, session, sequences)

    monkeypatch.setattr(PendingIndex, "_load", watched)
    for _ in range(2):
        with room.database.reader() as session:
            index.refresh(session, policy="default", cycle_start=-1)
    assert loads == [[0, 1, 2, 3, 4]]


def test_what_was_added_and_taken_out_leaves_nothing() -> None:
    lessons = [lesson(n, plain=f"{n}x {TRIGGER}", subject=f"u-{n % 2}") for n in range(6)]
    index = index_of(*lessons)
    assert index.burst(lessons[0], max_events=3, min_subject_share=0.6) is not None
    for sequence in range(6):
        index._remove(sequence)
    empty = PendingIndex(max_words=MAX_WORDS)
    assert vars(index) == vars(empty)
