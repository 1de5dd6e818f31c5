"""A running server, asked as products ask it: by the official client."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

from deploy.engines.transformers import TransformersEngine
from deploy.server import create_app
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Digest, Interaction, Release, short
from tacit.database import Database
from tacit.keys import KeyStore, Scope
from tacit.policies import load_policy
from tests.builders import user
from tests.deploy.scenes import Line, line, listening, until

PROMPT = "where is my order"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


@dataclass
class Serving:
    """A running server and what it recorded."""

    url: str
    line: Line
    keys: KeyStore
    key: str
    recorded: list[Interaction] = field(default_factory=list)
    http: httpx.Client = field(default_factory=httpx.Client)

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, http_client=self.http
        )

    def ask(self, **fields: Any) -> Any:
        values = {"model": "default", "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
        return self.client.chat.completions.create(**{**values, **fields})

    def post(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.key}", **headers}
        return httpx.post(f"{self.url}/v1/chat/completions", content=content, headers=sent)

    def serves(self, release: Release) -> bool:
        return release.release_id in {r.serving for r in self.line.desk.replicas("default")}

    def readiness(self) -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"{self.url}/readyz").json()
        return body


@contextmanager
def serving(
    database: Database,
    store: CheckpointStore,
    folder: Path,
    *,
    variant: int | None = 1,
    record: Callable[[Interaction], None] | None = None,
    engine: TransformersEngine | None = None,
    key_name: str = "helpdesk-key",
    **deploy: Any,
) -> Iterator[Serving]:
    scene, keys = line(database, store, folder), KeyStore(database)
    key = keys.create(key_name, scopes={Scope.SEND}, source="helpdesk", policy="default")
    running = Serving("", scene, keys, key)
    settings = Settings(home=folder, deploy={"poll_s": 0.01, "device": "cpu", **deploy})
    app = create_app(
        settings,
        db=database,
        store=store,
        verifier=scene.signer,
        keys=keys,
        record=record or running.recorded.append,
        engine=engine,
    )
    first = None if variant is None else scene.first(variant)
    with listening(app) as running.url:
        if first is not None:
            until(lambda: running.serves(first))
        with running.http:
            yield running


def greedy(store: CheckpointStore, weights: Digest, max_tokens: int = 8) -> Any:
    (completion,) = load_policy(store, weights).generate([user(PROMPT)], max_new_tokens=max_tokens)
    return completion


def version(weights: Digest) -> str:
    return f"default@{short(weights)}"
