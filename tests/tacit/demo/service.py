"""A serving API that answers from a book, and the real feedback API, over real HTTP."""

import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from collector.application import Collector
from collector.ingest import feedback_topic
from collector.streams import open_stream
from tacit.config import Settings, load_settings
from tacit.contracts import FeedbackEvent
from tacit.database import Database
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.ports import free_port


@dataclass
class Service:
    """Where to ask, where to send, and what came."""

    url: str
    api_key: str
    settings: Settings
    stream: Any
    answers: Mapping[str, str]
    version: str = "default@000000000000"
    failing: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    answered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each answer."""

    @property
    def serving_url(self) -> str:
        """As the openai client wants it."""
        return f"{self.url}/v1"

    def events(self) -> list[FeedbackEvent]:
        """All feedback that is durable."""
        records = self.stream.read(
            feedback_topic(self.settings), {0: 0}, limit=10_000, timeout_s=0.1
        )
        return [FeedbackEvent.model_validate_json(record.value) for record in records]

    def app(self, keys: KeyStore, database: Database) -> ASGIApp:
        """Both APIs on one port."""
        collector = Collector(self.settings, database, self.stream, keys)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            with collector.run():
                yield

        app = FastAPI(lifespan=lifespan)
        install_error_handlers(app)
        served = collector.install(app, journal=lambda *_: None, lineage=lambda _: {})
        ids = itertools.count()

        @app.post("/v1/chat/completions")
        def complete(body: dict[str, Any]) -> JSONResponse:
            self.requests.append(body)
            self.answered.release()
            if self.failing:
                return JSONResponse({"error": {"message": "down"}}, status_code=400)
            said = self.answers.get(body["messages"][0]["content"], "no idea")
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return JSONResponse(
                {
                    "id": f"chatcmpl-{next(ids)}",
                    "object": "chat.completion",
                    "created": 0,
                    "model": self.version,
                    "choices": [choice],
                }
            )

        return served


@contextmanager
def running_service(
    database: Database, home: Path, answers: Mapping[str, str], *, source: str
) -> Iterator[Service]:
    """A Service that listens, with a key for ``source``."""
    settings = load_settings(home=home)
    keys = KeyStore(database)
    port = free_port()
    service = Service(
        url=f"http://127.0.0.1:{port}",
        api_key=keys.create(source, scopes={Scope.SEND}, source=source),
        settings=settings,
        stream=open_stream(settings),
        answers=answers,
    )
    server = uvicorn.Server(
        uvicorn.Config(service.app(keys, database), port=port, log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield service
    server.should_exit = True
    thread.join()
