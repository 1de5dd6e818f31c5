"""Scenes of the SDK: a service it talks to, real or scripted, and answers as openai gives them."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openai.types.chat import ChatCompletion
from prometheus_client import CollectorRegistry

from collector.api.admission import Admission
from collector.api.feedback import create_router
from collector.api.intake import Intake
from collector.api.token_routes import create_router as token_router
from collector.api.tokens import FeedbackTokens
from collector.ingest import feedback_topic
from collector.monitoring.metrics import IngestCounters
from tacit.contracts import FeedbackEvent
from tacit.http import install_error_handlers
from tacit.keys import KeyStore
from tacit.principal import Scope
from tacit.secrets_file import MasterSecret
from tests.collector.conftest import Room


def chat(text: str, *, answer_id: str = "chatcmpl-1") -> ChatCompletion:
    """An answer as the official client returns it."""
    message = {"role": "assistant", "content": text}
    return ChatCompletion.model_validate(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
    )


def app_of(room: Room) -> FastAPI:
    """The feedback API of a room."""
    app = FastAPI()
    install_error_handlers(app)
    keys = KeyStore(room.database)
    tokens = FeedbackTokens(MasterSecret("m" * 43), keys)
    admission = Admission(keys, tokens, room.settings.collector)
    intake = Intake(room.ingestor, admission, IngestCounters(CollectorRegistry()))
    app.include_router(token_router(tokens, admission, room.settings))
    app.include_router(
        create_router(ingestor=room.ingestor, store=room.store, keys=keys, intake=intake)
    )
    return app


@contextmanager
def serving(app: Any, port: int) -> Iterator[str]:
    """A real uvicorn server; gives its URL."""
    config = uvicorn.Config(app, port=port, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def key_of(room: Room, name: str = "shop") -> str:
    """A new key of the product ``helpdesk``."""
    return KeyStore(room.database).create(name, scopes={Scope.SEND}, source="helpdesk")


def events_of(room: Room) -> list[FeedbackEvent]:
    """What was acknowledged, in order."""
    records = room.stream.read(feedback_topic(room.settings), {}, limit=99_999, timeout_s=0.0)
    return [FeedbackEvent.model_validate_json(record.value) for record in records]


class Flaky(httpx.BaseTransport):
    """Hands requests on to the app but loses some answers, and says 503 to some."""

    def __init__(self, app: FastAPI, script: list[str]) -> None:
        self._http = TestClient(app)
        self._script = script
        self.num_requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Do what the script says; at its end, hand on."""
        self.num_requests += 1
        step = self._script.pop(0) if self._script else "answer"
        if step == "unavailable":
            return httpx.Response(503, headers={"Retry-After": "0"})
        if step == "proxy":
            return httpx.Response(200, html="<h1>It works</h1>")
        names = ("authorization", "content-type", "content-encoding")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        answer = self._http.request(
            request.method, str(request.url), content=request.read(), headers=headers
        )
        if step == "lose":
            raise httpx.ReadTimeout("the answer was lost")
        return httpx.Response(answer.status_code, content=answer.content)


Answer = Callable[[list[dict[str, Any]]], httpx.Response]


class FakeService(httpx.MockTransport):
    """Keeps what it takes, in order; ``answer`` may say something else to a batch first.

    For sync and async clients alike.
    """

    def __init__(self, answer: Callable[["FakeService", list[Any]], Any] | None = None) -> None:
        super().__init__(self._handle)
        self._answer = answer
        self._lock = threading.Lock()
        self.requests: list[httpx.Request] = []
        self.taken: list[str] = []

    def _handle(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        if request.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        events = [json.loads(line) for line in content.splitlines()]
        with self._lock:
            self.requests.append(request)
            answer = self._answer(self, events) if self._answer is not None else None
            if answer is not None:
                return answer if isinstance(answer, httpx.Response) else httpx.Response(answer)
            return self.take(events)

    def take(self, events: list[Any]) -> httpx.Response:
        """Acknowledge ``events``."""
        self.taken.extend(event["event_id"] for event in events)
        return httpx.Response(202, json={"results": [{"status": "queued"} for _ in events]})
