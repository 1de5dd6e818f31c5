"""What both clients promise, to threads and to asyncio alike."""

import asyncio
import contextlib
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from openai.types import responses
from openai.types.chat import ChatCompletionChunk

from collector.client import AsyncTacitClient, TacitClient
from tacit.contracts import Rating
from tacit.errors import (
    InvalidInputError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from tacit.ports import free_port
from tests.builders import event, interaction
from tests.collector.conftest import MakeRoom
from tests.collector.products import FakeService, app_of, chat, events_of, key_of, serving


class Blocking:
    """An AsyncTacitClient in a loop of its own, called as if it were a TacitClient."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = self._call(self._make, url, **options)

    async def _make(self, url: str, **options: Any) -> AsyncTacitClient:
        return AsyncTacitClient(url, **options)

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        call = method(*args, **options)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        return lambda *args, **options: self._call(found, *args, **options)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


Connect = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of either kind; those still open at the end are closed."""
    made: list[Any] = []

    def build(transport: Any = None, *, url: str = "http://tacit", **options: Any) -> Any:
        values = {"api_key": "k", "source": "helpdesk", "subject_id": "u-1", **options}
        kind = TacitClient if request.param == "threads" else Blocking
        made.append(kind(url, transport=transport, **values))
        return made[-1]

    yield build
    for client in made:
        with contextlib.suppress(UnavailableError, InvalidInputError):
            client.close(timeout_s=0)
        if isinstance(client, Blocking):
            client.end()


def down(*_: Any) -> int:
    return 503


def test_events_arrive_once_and_in_order_at_a_real_service(
    make: MakeRoom, connect: Connect
) -> None:
    room = make(max_events_per_subject=999)
    with serving(app_of(room), free_port()) as url:
        tacit = connect(url=url, api_key=key_of(room), max_batch_events=7, compress=True)
        ids = [tacit.correct(chat("x", answer_id=f"c-{i}"), "y" * 2_000) for i in range(30)]
        ids.append(tacit.thumb("c-9", up=False, interaction=interaction()))
        tacit.flush()
        sent = events_of(room)
        assert [e.event_id for e in sent] == ids
        assert isinstance(sent[-1].feedback, Rating)
        assert sent[-1].feedback.normalized() == -1
        assert sent[-1].interaction == interaction()
        status = tacit.status(ids[0])
        assert (status.event_id, status.status) == (ids[0], "queued")
        with pytest.raises(NotFoundError):
            tacit.status("never-sent")
        tacit.close()


def test_token_lets_a_browser_send_for_one_answer(make: MakeRoom, connect: Connect) -> None:
    room = make()
    with serving(app_of(room), free_port()) as url:
        tacit = connect(url=url, api_key=key_of(room))
        token = tacit.token(chat("x", answer_id="c-1"), subject_id="u-7", expires_in_s=60)
        said = event("e-1", interaction_id="c-1", subject_id="u-7").model_dump_json()
        other = event("e-2", interaction_id="c-2", subject_id="u-7").model_dump_json()
        headers = {"Authorization": f"Bearer {token.token}", "Content-Type": "application/json"}
        with httpx.Client(base_url=url, headers=headers) as browser:
            assert browser.post("/v1/feedback", content=said).status_code == 202
            assert browser.post("/v1/feedback", content=other).status_code == 403
        with pytest.raises(InvalidInputError, match="expires_in_s"):
            tacit.token("c-1", expires_in_s=10**9)
        tacit.close()
    with pytest.raises(InvalidInputError, match="openai response"):
        tacit.token(SimpleNamespace(id=3))


def test_service_that_is_away_is_named(connect: Connect) -> None:
    tacit = connect(url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="ConnectError"):
        tacit.status("e-1")


def test_every_object_of_openai_with_an_id_will_do(connect: Connect) -> None:
    service = FakeService()
    tacit = connect(service)
    chunk = ChatCompletionChunk.model_validate(
        {
            "id": "chunk-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [],
        }
    )
    text = {"type": "output_text", "text": "good", "annotations": []}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    response = responses.Response.model_construct(
        id="resp_1", output=[responses.ResponseOutputMessage.model_validate(message)]
    )
    done = responses.ResponseCompletedEvent.model_construct(
        response=response, type="response.completed"
    )
    tacit.critique(chunk, "too long")
    tacit.prefer(response, "bad")
    tacit.outcome(done, True)
    tacit.flush()
    bodies = b"".join(request.read() for request in service.requests)
    for part in (b'"chunk-1"', b'"resp_1"', b'"chosen":"good"'):
        assert part in bodies
    assert bodies.count(b'"resp_1"') == 2


@pytest.mark.parametrize("spooled", [False, True])
def test_memory_stays_within_its_bound(connect: Connect, tmp_path: Path, spooled: bool) -> None:
    """64 KiB events against a service that is away: at most 1,000,000 bytes of them stay."""
    limit = 1_000_000
    options = {"spool": tmp_path, "max_spool_bytes": 20 * limit} if spooled else {}
    tacit = connect(
        FakeService(down),
        max_queue_bytes=limit,
        max_batch_bytes=100_000,
        queue_timeout_s=0,
        **options,
    )
    text = "x" * 65_536
    tracemalloc.start()
    sent = _send_until_full(tacit, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent == (302 if spooled else 15)
    assert tacit.num_waiting == sent
    assert tacit._queue.num_bytes <= (20 if spooled else 1) * limit
    # Beside the queue, the one batch that is on its way: its events, joined, and in httpx.
    assert peak < (0 if spooled else limit) + 700_000


def _send_until_full(tacit: Any, text: str) -> int:
    for number in itertools.count():
        try:
            tacit.correct("c-1", text)
        except UnavailableError:
            return number
    raise AssertionError("unreachable")


def test_a_hundred_thousand_events_need_little_memory(connect: Connect) -> None:
    num_taken = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal num_taken
        num_events = request.read().count(b"\n") + 1
        num_taken += num_events
        return httpx.Response(202, json={"results": [{"status": "queued"}] * num_events})

    transport = httpx.MockTransport(answer)
    tacit = connect(transport, max_queue=2_000, max_batch_events=1_000, queue_timeout_s=60)
    tracemalloc.start()
    ids = tacit.send_many(itertools.repeat(event(interaction_id="c-1"), 100_000))
    tacit.flush()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(ids), num_taken) == (100_000, 100_000)
    # 2,000 events in the queue, 1,000 on their way; all of them would be 70 MB.
    assert peak < 10_000_000


def test_event_larger_than_the_queue_is_refused_at_once(connect: Connect) -> None:
    tacit = connect(FakeService(down), max_queue_bytes=1_000)
    with pytest.raises(TooLargeError, match="1000 bytes"):
        tacit.correct("c-1", "x" * 2_000)
    assert tacit.num_waiting == 0


def test_full_queue_waits_for_room_and_finds_it(connect: Connect) -> None:
    calls: list[int] = []

    def away_at_first(service: FakeService, _: list[Any]) -> int | None:
        calls.append(1)
        return 503 if len(calls) < 4 else None

    service = FakeService(away_at_first)
    tacit = connect(service, max_queue=2, max_batch_events=1, queue_timeout_s=30)
    ids = [tacit.outcome("c-1", True) for _ in range(8)]
    tacit.flush()
    assert service.taken == ids


def test_flush_waits_for_what_was_sent_before_and_for_no_more(connect: Connect) -> None:
    ready = threading.Event()

    def late(service: FakeService, events: list[Any]) -> int | None:
        return 503 if events[0]["event_id"] == "late" and not ready.is_set() else None

    service = FakeService(late)
    tacit = connect(service, max_batch_events=1)
    tacit.outcome("c-1", True, event_id="early")
    tacit.flush()
    tacit.outcome("c-1", True, event_id="late")
    with pytest.raises(UnavailableError, match="1 still waiting"):
        tacit.flush(timeout_s=0.05)
    ready.set()
    tacit.flush()
    assert service.taken == ["early", "late"]


def test_spool_outlives_the_client(connect: Connect, tmp_path: Path) -> None:
    first = connect(FakeService(down), spool=tmp_path)
    ids = [first.outcome(f"c-{i}", True) for i in range(5)]
    first.close(timeout_s=0)
    assert first.rejected == []
    service = FakeService()
    second = connect(service, spool=tmp_path)
    assert second.num_waiting == 5
    second.flush()
    second.close()
    assert service.taken == ids
    assert list(tmp_path.iterdir()) == []


def test_wrong_key_loses_nothing_on_disk(connect: Connect, tmp_path: Path) -> None:
    first = connect(FakeService(lambda *_: 401), spool=tmp_path)
    ids = [first.outcome("c-1", True)]
    with pytest.raises(UnavailableError, match="HTTP 401"):
        first.flush(timeout_s=0.3)
    first.close(timeout_s=0)
    assert first.rejected == []
    service = FakeService()
    second = connect(service, spool=tmp_path)
    second.flush()
    assert service.taken == ids


def test_rejected_event_is_told_once_by_flush_and_by_callback(
    connect: Connect, tmp_path: Path
) -> None:
    told: list[str] = []

    def answer(_: FakeService, events: list[Any]) -> httpx.Response:
        return httpx.Response(207, json={"results": [{"status": "rejected"} for _ in events]})

    tacit = connect(
        FakeService(answer), spool=tmp_path, on_rejected=lambda r, _: told.append(r.event_id)
    )
    sent = tacit.outcome("c-1", True)
    with pytest.raises(InvalidInputError, match="1 turned away"):
        tacit.flush()
    tacit.flush()
    assert told == [r.event_id for r in tacit.rejected] == [sent]


def test_closed_client_says_so(connect: Connect) -> None:
    tacit = connect(FakeService())
    tacit.close()
    tacit.close()
    with pytest.raises(UnavailableError, match="closed"):
        tacit.outcome("c-1", True)


def test_key_with_a_line_end_is_cleaned_and_a_broken_one_refused(connect: Connect) -> None:
    service = FakeService()
    tacit = connect(service, api_key="tacit.a.b\n")
    tacit.outcome("c-1", True)
    tacit.flush()
    assert service.requests[0].headers["Authorization"] == "Bearer tacit.a.b"
    for bad in ("tacit.ä", "a\nb"):
        with pytest.raises(InvalidInputError, match="ASCII") as told:
            TacitClient("http://tacit", source="s", api_key=bad)
        assert bad not in str(told.value)


def test_misspelt_argument_is_refused() -> None:
    tacit = AsyncTacitClient("http://tacit", source="s", transport=FakeService())
    with pytest.raises(InvalidInputError, match="subjekt_id"):
        tacit.outcome("c-1", True, subjekt_id="u")  # type: ignore[call-arg]
    tacit._close_at_exit()


def test_call_that_finds_room_as_the_client_closes_is_not_lost_in_silence(connect: Connect) -> None:
    ready = threading.Event()

    def answer(_: FakeService, events: list[Any]) -> int | None:
        return None if ready.is_set() and events[0]["event_id"] == "first" else 503

    tacit = connect(FakeService(answer), max_queue=1, queue_timeout_s=10)
    tacit.outcome("c-1", True, event_id="first")
    ends: dict[str, Any] = {}

    def call(name: str, do: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                ends[name] = do()
            except UnavailableError as error:
                ends[name] = error

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [call("second", lambda: tacit.outcome("c-2", True, event_id="second"))]
    while not waits_for_room(tacit):
        pass
    threads.append(call("close", lambda: tacit.close(5)))
    while not tacit._closed:
        pass
    ready.set()
    for thread in threads:
        thread.join(20)
    assert isinstance(ends["second"], UnavailableError) or isinstance(
        ends["close"], UnavailableError
    )


def waits_for_room(tacit: Any) -> bool:
    return bool(tacit._outbox._changed._waiters)


def test_error_that_nobody_foresaw_does_not_end_the_sending(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that cannot be looked up, a file that was tidied away: the next try may go through."""
    monkeypatch.setattr("collector.sdk.outbox.RETRY_S", 0.01)
    monkeypatch.setattr("collector.sdk.async_outbox.RETRY_S", 0.01)

    def answer(service: FakeService, _: list[Any]) -> None:
        if len(service.requests) < 3:
            raise UnicodeError("label empty or too long")

    service = FakeService(answer)
    tacit = connect(service)
    sent = tacit.outcome("c-1", True)
    tacit.flush()
    assert service.taken == [sent]
