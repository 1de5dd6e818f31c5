"""Processes that send and are killed, that share a spool, and that fork."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from collector.client import TacitClient
from collector.sdk import forks
from collector.sdk.forks import Forkable, guard_forks
from tacit.errors import InvalidInputError
from tests.collector.products import FakeService

PRODUCT = """
import os, signal, sys, time
from pathlib import Path
from collector.client import TacitClient
name, url, spool, num = sys.argv[1:5]
tacit = TacitClient(url, api_key="k", source="helpdesk", subject_id="u-1", spool=spool, timeout_s=5)
log = os.open(sys.argv[5], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(num)):
    event_id = tacit.outcome("c-1", True, event_id=f"{name}-{number}")
    os.write(log, event_id.encode() + b"\\n")
"""


class Service:
    """A real HTTP server that acknowledges, or says 503 while ``away``."""

    def __init__(self) -> None:
        self.away = False
        self.taken: list[str] = []
        self._lock = threading.Lock()
        self._listen(0)

    def _listen(self, port: int) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = service.take(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False  # so that closing waits for requests under way
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def take(self, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            if self.away:
                return 503, b"{}"
            events = [json.loads(line) for line in body.splitlines()]
            self.taken += [event["event_id"] for event in events]
            return 202, json.dumps({"results": [{"status": "queued"}] * len(events)}).encode()

    def come_back(self) -> None:
        """No longer away, once what a killed process left on the wire has got its 503."""
        self.close()
        self.away = False
        self._listen(self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def start(name: str, service: Service, folder: Path, num: int, code: str = "") -> Any:
    """A product that sends ``num`` events and writes down each whose call returned."""
    script = PRODUCT + textwrap.dedent(code)
    arguments = [name, service.url, str(folder / "spool"), str(num), str(folder / name)]
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )


def returned(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().split()


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_killed_process_loses_no_event_whose_call_had_returned(
    service: Service, tmp_path: Path
) -> None:
    service.away = True
    first = start("a", service, tmp_path, 2_000, KILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    service.come_back()
    second = start("b", service, tmp_path, 1, "tacit.flush()")
    assert (second.communicate()[1], second.returncode) == ("", 0)
    sent = returned(tmp_path, "a")
    assert len(sent) == 2_000
    assert service.taken == [*sent, "b-0"]
    assert list((tmp_path / "spool").iterdir()) == []


def test_killed_at_any_moment_while_sending(service: Service, tmp_path: Path) -> None:
    """Killed from outside, in the middle of calls and of requests, several times over."""
    for number in range(4):
        product = start(f"p{number}", service, tmp_path, 100_000)
        while len(service.taken) < 300 * (number + 1):
            assert product.poll() is None
        product.kill()
        product.communicate()
    last = start("last", service, tmp_path, 0, "tacit.flush()")
    assert (last.communicate()[1], last.returncode) == ("", 0)
    for number in range(4):
        sent = returned(tmp_path, f"p{number}")
        assert set(sent) <= set(service.taken)
        mine = [name for name in dict.fromkeys(service.taken) if name.startswith(f"p{number}-")]
        assert mine == [f"p{number}-{i}" for i in range(len(mine))]


def test_two_processes_share_a_spool(service: Service, tmp_path: Path) -> None:
    code = "tacit.flush()"
    both = [start(name, service, tmp_path, 500, code) for name in ("a", "b")]
    for product in both:
        assert (product.communicate()[1], product.returncode) == ("", 0)
    assert set(Counter(service.taken).values()) == {1}
    for name in ("a", "b"):
        mine = [each for each in service.taken if each.startswith(name)]
        assert mine == returned(tmp_path, name) == [f"{name}-{i}" for i in range(500)]


def test_living_process_delivers_for_a_dead_one(service: Service, tmp_path: Path) -> None:
    service.away = True
    start("dead", service, tmp_path, 5, KILL).communicate()
    service.come_back()
    with TacitClient(service.url, source="helpdesk", spool=tmp_path / "spool") as tacit:
        assert tacit.num_waiting == 5
        tacit.flush()
    assert service.taken == [f"dead-{i}" for i in range(5)]


FORK = """
child = os.fork()
if child == 0:
    tacit.outcome("c-1", True, event_id="child-0")
    {child}
os.waitpid(child, 0)
tacit.outcome("c-1", True, event_id="parent-0")
{parent}
"""


@pytest.mark.parametrize("end", ["tacit.close(); os._exit(0)", "sys.exit(0)"])
def test_forked_child_sends_its_own_and_leaves_its_parents_alone(
    service: Service, tmp_path: Path, end: str
) -> None:
    service.away = True
    code = FORK.format(child=end, parent=KILL)
    parent = start("before", service, tmp_path, 20, code)
    parent.communicate()
    service.come_back()
    with TacitClient(service.url, source="helpdesk", spool=tmp_path / "spool") as tacit:
        tacit.flush()
    assert sorted(service.taken) == sorted(
        [*(f"before-{i}" for i in range(20)), "child-0", "parent-0"]
    )


@pytest.mark.parametrize("end", ["sys.exit(0)", "asyncio.run(tacit.close()); os._exit(0)"])
def test_forked_child_leaves_alone_the_client_of_asyncio(
    service: Service, tmp_path: Path, end: str
) -> None:
    """A server that loads the product before it forks: the spool is its own, and it is killed."""
    service.away = True
    code = f"""
    import asyncio, os, signal, sys
    from collector.client import AsyncTacitClient
    from tacit.errors import UnavailableError
    tacit = AsyncTacitClient(sys.argv[1], source="helpdesk", subject_id="u", spool=sys.argv[2])
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(tacit.outcome("c-1", True))
        except UnavailableError:
            {end}
        os._exit(9)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(tacit.outcome("c-1", True, event_id="parent-0"))
    {KILL}
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), service.url, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (parent.returncode, parent.stderr) == (-signal.SIGKILL, "")
    service.come_back()
    with TacitClient(service.url, source="helpdesk", spool=tmp_path) as tacit:
        tacit.flush()
    assert service.taken == ["parent-0"]


def test_forked_child_tells_of_its_own_rejections_alone() -> None:
    with TacitClient("http://tacit", source="x", transport=FakeService(lambda *_: 422)) as tacit:
        for number in range(3):
            tacit.outcome(f"c-{number}", True, subject_id="u-1")
        with pytest.raises(InvalidInputError, match="3 turned away"):
            tacit.flush()
        child = os.fork()
        if child == 0:
            try:
                tacit.flush(5)
                tacit.outcome("c-4", True, subject_id="u-1")
                with pytest.raises(InvalidInputError, match="1 turned away"):
                    tacit.flush(5)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_two_threads_that_fork_at_once_leave_nothing_locked() -> None:
    """What one holds still for its fork the other must not forget to let go."""
    guarded = HeldStill()
    guard_forks(guarded)
    forks._before()
    second = threading.Thread(target=fork_nothing)
    second.start()
    guarded.asked.wait(0.1)  # the second is on its way in, and waits
    forks._after(let_go)
    second.join(10)
    assert not guarded.lock.locked()


def let_go(forkable: Forkable) -> None:
    forkable.let_go()


def fork_nothing() -> None:
    forks._before()
    forks._after(let_go)


class HeldStill:
    """Something to hold still, whose lock belongs to no thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = threading.Event()

    def hold(self) -> None:
        if self.lock.locked():
            self.asked.set()
        self.lock.acquire()

    def let_go(self) -> None:
        self.lock.release()

    def let_go_in_child(self) -> None:
        self.let_go()


def test_fork_in_the_middle_of_sending_in_memory(service: Service) -> None:
    """Other threads send all the while; each child works, and nobody's events are doubled."""
    code = """
    import os, sys, threading
    from collector.client import TacitClient
    tacit = TacitClient(sys.argv[1], api_key="k", source="helpdesk", subject_id="u-1")
    threads = [
        threading.Thread(target=lambda n=n: [
            tacit.outcome("c-1", True, event_id=f"t{n}-{i}") for i in range(300)])
        for n in range(3)
    ]
    for thread in threads: thread.start()
    for number in range(8):
        child = os.fork()
        if child == 0:
            tacit.outcome("c-1", True, event_id=f"child-{number}")
            tacit.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads: thread.join()
    tacit.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), service.url],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = [f"t{n}-{i}" for n in range(3) for i in range(300)]
    assert sorted(service.taken) == sorted([*expected, *(f"child-{i}" for i in range(8))])


def test_sending_thread_imports_nothing(service: Service) -> None:
    """An import that is under way as the process forks stays locked in the child for ever."""
    code = """
    import sys
    from collector.client import TacitClient
    tacit = TacitClient(sys.argv[1], source="helpdesk", subject_id="u-1", compress=True)
    known = set(sys.modules)
    tacit.outcome("c-1", True)
    tacit.flush()
    sys.exit(" ".join(sorted(set(sys.modules) - known)) or 0)
    """
    url = service.url.replace("127.0.0.1", "localhost")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), url],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(service.taken) == 1


def test_client_of_asyncio_at_the_end_of_its_loop(service: Service, tmp_path: Path) -> None:
    """A client that was never closed: what is on disk goes with the next, and the log says so."""
    code = """
    import asyncio, contextlib, sys
    from collector.client import AsyncTacitClient
    from tacit.errors import UnavailableError
    async def main():
        tacit = AsyncTacitClient(sys.argv[1], source="helpdesk", subject_id="u", spool=sys.argv[2])
        await tacit.outcome("c-1", True, event_id="forgotten")
        with contextlib.suppress(UnavailableError):
            await tacit.flush(0.3)
    asyncio.run(main())
    """
    service.away = True
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), service.url, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "they stay in the spool" in done.stderr
    assert "Traceback" not in done.stderr
    service.come_back()

    async def next_process() -> None:
        from collector.client import AsyncTacitClient

        async with AsyncTacitClient(service.url, source="helpdesk", spool=tmp_path) as tacit:
            await tacit.flush()

    asyncio.run(next_process())
    assert service.taken == ["forgotten"]
