"""Programs on ports, and an environment that names no cluster."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tacit.doctor.patients import Answers, serving


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on and never answers at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def healthy() -> Iterator[int]:
    """A server that says it is well, whatever is asked."""
    yield from serving(Answers)


@pytest.fixture
def refusing() -> Iterator[int]:
    """A server that wants a key."""
    yield from serving(type("Refuses", (Answers,), {"status": 401}))


@pytest.fixture
def guarded() -> Iterator[int]:
    """An MLflow that is well and does not know the name it was called by."""
    guards = {"status": 403, "allowed": ("/health",), "body": b"Invalid Host header"}
    yield from serving(type("Guards", (Answers,), guards))
