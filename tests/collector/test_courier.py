"""What the SDK does after each answer, step by step and without a clock that runs."""

import gzip
import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.sdk.answers import FeedbackStatus, FeedbackToken, Rejection, read, retry_after_s
from collector.sdk.courier import MAX_REJECTED, BatchLimits, Courier, Idle, Pause, Post
from collector.sdk.letters import Letter, MemoryQueue
from tacit.errors import (
    ConflictError,
    InvalidInputError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    TacitError,
    UnavailableError,
)


class OnDisk(MemoryQueue):
    """A queue that says it outlives the process."""

    persistent = True


class Errand:
    """A courier, its queue of ``e-0``… and its clock."""

    def __init__(
        self, num_events: int = 4, *, disk: bool = False, size: int = 10, **options: Any
    ) -> None:
        kind = OnDisk if disk else MemoryQueue
        self.queue = kind(max_events=10**6, max_bytes=10**9)
        self.queue.offer(
            [Letter(f"e-{i}", f'"e-{i}"'.encode().ljust(size)) for i in range(num_events)]
        )
        self.now = 0.0
        limits = BatchLimits(max_events=options.pop("max_events", 200))
        self.courier = Courier(self.queue, limits, clock=lambda: self.now, **options)
        self.steps = self.courier.steps()
        self.step = next(self.steps)

    def answer(self, answer: httpx.Response | Exception | None) -> Any:
        """What it does next."""
        self.step = self.steps.send(answer)
        return self.step

    def posted(self) -> list[str]:
        """Ids in the batch it wants to send."""
        assert isinstance(self.step, Post)
        content = self.step.content
        if "Content-Encoding" in self.step.headers:
            content = gzip.decompress(content)
        return [json.loads(line) for line in content.splitlines()]

    def waiting(self) -> int:
        return self.queue.num_offered - self.queue.num_removed


def results(*statuses: str) -> httpx.Response:
    items = [{"index": i, "status": s, "error": {"type": s}} for i, s in enumerate(statuses)]
    whole = set(statuses) <= {"queued"}
    return httpx.Response(202 if whole else 207, json={"results": items})


def test_acknowledged_events_leave_and_only_those() -> None:
    errand = Errand(3, max_events=2)
    assert errand.posted() == ["e-0", "e-1"]
    errand.answer(results("queued", "duplicate"))
    assert (errand.posted(), errand.waiting()) == (["e-2"], 1)
    assert isinstance(errand.answer(results("queued")), Idle)
    assert (errand.waiting(), errand.courier.num_rejected) == (0, 0)


def test_items_turned_away_are_kept_with_their_reasons(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[tuple[Rejection, bytes]] = []
    errand = Errand(3, on_rejected=lambda *each: told.append(each))
    errand.answer(results("queued", "conflict", "rejected"))
    assert [(r.event_id, r.status) for r in errand.courier.rejected] == [
        ("e-1", "conflict"),
        ("e-2", "rejected"),
    ]
    assert [(r.event_id, body.strip()) for r, body in told] == [
        ("e-1", b'"e-1"'),
        ("e-2", b'"e-2"'),
    ]
    assert not caplog.records, "who is told of each needs no log of each"
    Errand(1).answer(results("rejected"))
    assert "event e-0 is rejected" in caplog.text


def test_callback_that_fails_does_not_end_delivery(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("product's own")

    errand = Errand(2, on_rejected=fail)
    assert isinstance(errand.answer(results("rejected", "queued")), Idle)
    assert "product's own" in caplog.text


def test_list_of_the_turned_away_is_bounded() -> None:
    errand = Errand(MAX_REJECTED + 500, max_events=100)
    while isinstance(errand.step, Post):
        errand.answer(results(*["rejected"] * len(errand.posted())))
    assert len(errand.courier.rejected) == MAX_REJECTED
    assert errand.courier.num_rejected == MAX_REJECTED + 500
    assert errand.courier.rejected[-1].event_id == f"e-{MAX_REJECTED + 499}"


AGAIN = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("late"),
    *(httpx.Response(status) for status in (301, 408, 425, 429, 500, 502, 503, 504)),
    httpx.Response(200, html="<h1>It works</h1>"),
    httpx.Response(202, json={"results": []}),
    httpx.Response(202, json={"results": [{}] * 4}),
    httpx.Response(202, json=[1]),
    httpx.Response(202, content=b"\xff\xfe"),
]


@pytest.mark.parametrize("answer", AGAIN, ids=str)
@pytest.mark.parametrize("disk", [False, True])
def test_nothing_leaves_on_an_answer_that_promises_nothing(
    answer: httpx.Response | Exception, disk: bool
) -> None:
    errand = Errand(4, disk=disk)
    for _ in range(20):
        pause = errand.answer(answer)
        assert isinstance(pause, Pause)
        assert 0 <= pause.seconds <= 10
        assert (errand.waiting(), errand.courier.num_rejected) == (4, 0)
        errand.answer(None)
        assert errand.posted() == [f"e-{i}" for i in range(4)]
    assert errand.courier.last_error


def test_pauses_grow_and_differ() -> None:
    errand = Errand(1)
    pauses = []
    for _ in range(300):
        pauses.append(errand.answer(httpx.Response(503)).seconds)
        errand.answer(None)
    assert max(pauses[:3]) <= 0.4
    assert max(pauses[10:]) > 5
    assert len(set(pauses)) == 300


def test_retry_after_is_waited_for() -> None:
    errand = Errand(1)
    pause = errand.answer(httpx.Response(429, headers={"Retry-After": "7"}))
    assert 7 <= pause.seconds <= 7.2


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("86400", 60),
        ("9" * 5_000, 60),
        (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9),
        (format_datetime(NOW - timedelta(seconds=9), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 60),
        ("Fri, 02 Jan 2026 03:04:15 -0000", 10),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("1e3", 0),
    ],
)
def test_retry_after_in_both_forms_and_capped(header: str, seconds: float) -> None:
    response = httpx.Response(503, headers={"Retry-After": header})
    assert retry_after_s(response, now=NOW) == seconds


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40))
def test_any_retry_after_is_a_time_to_wait(header: str) -> None:
    response = httpx.Response(503, headers={"Retry-After": header.encode("latin-1")})
    assert 0 <= retry_after_s(response, now=NOW) <= 60


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_key_holds_what_is_on_disk_and_says_so_once_a_minute(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    errand = Errand(3, disk=True)
    for _ in range(130):
        assert isinstance(errand.answer(httpx.Response(status)), Pause)
        errand.now += 1
        errand.answer(None)
    assert (errand.waiting(), errand.courier.num_rejected) == (3, 0)
    told = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == 3
    assert "3 events wait in the queue of 1000000 events" in told[0].message
    assert str(status) in told[0].message
    errand.answer(results("queued", "queued", "queued"))
    assert errand.waiting() == 0


def test_wrong_key_ends_what_is_in_memory() -> None:
    errand = Errand(3)
    assert isinstance(errand.answer(httpx.Response(401)), Idle)
    assert [r.status for r in errand.courier.rejected] == ["401"] * 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_batch_refused_as_a_whole_is_halved_down_to_the_one_at_fault(status: int) -> None:
    errand = Errand(16)
    sent: list[str] = []
    while isinstance(errand.step, Post):
        batch = errand.posted()
        if "e-11" in batch:
            errand.answer(httpx.Response(status))
        else:
            sent += batch
            errand.answer(results(*["queued"] * len(batch)))
    assert sent == [f"e-{i}" for i in range(16) if i != 11]
    assert [(r.event_id, r.status) for r in errand.courier.rejected] == [("e-11", str(status))]
    assert errand.waiting() == 0


def test_large_batches_are_compressed_when_asked() -> None:
    large = Errand(4, size=2_000, compress=True)
    assert large.step.headers["Content-Encoding"] == "gzip"
    assert len(large.step.content) < 1_000
    assert large.posted() == [f"e-{i}" for i in range(4)]
    assert "Content-Encoding" not in Errand(4, size=100, compress=True).step.headers
    assert "Content-Encoding" not in Errand(4, size=2_000).step.headers


@pytest.mark.parametrize("status", [400, 415, 422])
def test_service_without_gzip_gets_batches_as_they_are(status: int) -> None:
    errand = Errand(4, size=2_000, compress=True, max_events=3)
    errand.answer(httpx.Response(status))
    assert "Content-Encoding" not in errand.step.headers
    assert errand.posted() == ["e-0", "e-1", "e-2"]
    errand.answer(results("queued", "queued", "queued"))
    assert (errand.posted(), errand.courier.num_rejected) == (["e-3"], 0)


def test_disk_that_cannot_be_read_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    errand = Errand(0)
    assert isinstance(errand.step, Idle)

    def broken(**_: int) -> list[Letter]:
        raise UnavailableError("a disk")

    good, errand.queue.head = errand.queue.head, broken  # type: ignore[method-assign]
    assert isinstance(errand.answer(None), Pause)
    assert "a disk" in caplog.text
    errand.queue.head = good  # type: ignore[method-assign]
    errand.queue.offer([Letter("e-9", b'"e-9"')])
    errand.answer(None)
    assert errand.posted() == ["e-9"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, NotAuthenticatedError),
        (403, NotAllowedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidInputError),
        (429, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_error_of_the_service_is_raised_as_its_own_kind(
    status: int, kind: type[TacitError]
) -> None:
    fields = {"type": "X", "expected": "this", "got": "that", "mend": "so"}
    with pytest.raises(kind, match=r"expected this; got that\. so"):
        read(FeedbackStatus, httpx.Response(status, json={"error": fields}))
    with pytest.raises(kind, match="proxy says no"):
        read(FeedbackStatus, httpx.Response(status, text="proxy says no"))


def test_answer_of_something_else_is_not_taken_for_tacits() -> None:
    with pytest.raises(UnavailableError, match="It works"):
        read(FeedbackToken, httpx.Response(200, html="<h1>It works</h1>"))
    told = {"event_id": "e", "status": "accepted", "releases": ["r-1"]}
    assert read(FeedbackStatus, httpx.Response(200, json=told)).releases == ["r-1"]  # type: ignore[attr-defined]


def test_a_date_no_clock_can_show_is_no_wish() -> None:
    far = httpx.Response(503, headers={"Retry-After": f"Mon, 01 Jan {'9' * 20} 10:00:00 GMT"})
    assert retry_after_s(far) == 0.0
