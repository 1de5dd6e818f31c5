"""What only the client for asyncio must withstand: cancellation, and an end without leaks."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import httpx
import pytest

from collector.client import AsyncTacitClient
from tacit.errors import UnavailableError
from tests.collector.products import FakeService


def client(transport: httpx.AsyncBaseTransport, **options: Any) -> AsyncTacitClient:
    values = {"api_key": "k", "source": "helpdesk", "subject_id": "u-1", **options}
    return AsyncTacitClient("http://tacit", transport=transport, **values)


class Stuck(httpx.AsyncBaseTransport):
    """Never answers, and says when it was asked and when it was given up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.given_up = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise
        raise AssertionError("unreachable")


def test_closing_ends_the_task_and_the_request() -> None:
    async def main() -> None:
        stuck = Stuck()
        tacit = client(stuck)
        await tacit.outcome("c-1", True)
        await stuck.asked.wait()
        with pytest.raises(UnavailableError, match="1 still waiting"):
            await tacit.close(timeout_s=0.01)
        assert stuck.given_up
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()  # a task or a coroutine that was forgotten would warn now

    asyncio.run(main(), debug=True)


@pytest.mark.parametrize("spooled", [False, True])
def test_cancelled_calls_leave_the_client_in_order(tmp_path: Path, spooled: bool) -> None:
    async def main() -> None:
        service = FakeService()
        tacit = client(service, **({"spool": tmp_path} if spooled else {}))
        calls = [
            asyncio.create_task(tacit.outcome("c-1", True, event_id=f"e-{i}")) for i in range(50)
        ]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        await tacit.close()
        # A call that was cut off may have come through; one that returned must have.
        assert {each for each in done if isinstance(each, str)} <= set(service.taken)
        assert len(service.taken) == len(set(service.taken)) <= 50

    asyncio.run(main(), debug=True)


def test_cancelled_wait_for_room_and_for_flush() -> None:
    async def main() -> None:
        ready = False
        service = FakeService(lambda *_: None if ready else 503)
        tacit = client(service, max_queue=1, queue_timeout_s=60)
        first = await tacit.outcome("c-1", True)
        blocked = asyncio.create_task(tacit.outcome("c-2", True))
        flushing = asyncio.create_task(tacit.flush(60))
        await asyncio.sleep(0.02)
        for task in (blocked, flushing):
            assert not task.done()
            task.cancel()
        await asyncio.gather(blocked, flushing, return_exceptions=True)
        assert blocked.cancelled()
        assert flushing.cancelled()
        ready = True
        await tacit.flush()
        await tacit.close()
        assert service.taken == [first]

    asyncio.run(main(), debug=True)


def test_body_that_fails_keeps_its_own_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with client(FakeService(lambda *_: 401)) as tacit:
            await tacit.outcome("c-1", True)
            raise KeyError("product's own")

    with pytest.raises(KeyError, match="product's own"):
        asyncio.run(main())
    assert "feedback was lost" in caplog.text


def test_the_loop_runs_on_while_the_disk_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waits for the disk holds up no other coroutine."""
    import threading

    from collector.sdk.spool import Spool

    release = threading.Event()
    offer = Spool.offer

    def slow(spool: Spool, letters: Any) -> int:
        assert release.wait(10)
        return offer(spool, letters)

    monkeypatch.setattr(Spool, "offer", slow)

    async def main() -> None:
        service = FakeService()
        async with client(service, spool=tmp_path) as tacit:
            call = asyncio.create_task(tacit.outcome("c-1", True))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not call.done()
            release.set()
            await call
        assert len(service.taken) == 1

    asyncio.run(main())
