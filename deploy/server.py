"""The OpenAI-compatible server of one policy line.

In: requests for chat and text completions, with an API key of scope ``send``. Out: answers that
name the policy version that gave them; their ``id`` is the interaction id that feedback refers to.
What it serves is decided by ``deploy/watch.py`` alone, and only from releases that verify.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from deploy.arms import Arms
from deploy.chat import Asker, Record, Recorder, Step, submit, wait
from deploy.engines.base import Engine
from deploy.engines.create import create_engine
from deploy.openai_fields import parse_request
from deploy.openai_format import install_openai_errors, model_entry, policy_version
from deploy.openai_requests import ChatRequest, TextRequest
from deploy.shadow import Shadow
from deploy.stream import stream
from deploy.traffic import Traffic
from deploy.watch import ReleaseWatcher
from tacit.api_page import add_api_page
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Digest
from tacit.database import Database
from tacit.errors import NotFoundError, TooLargeError
from tacit.http import bearer_credential, bearer_principal
from tacit.keys import KeyStore, Principal, Scope
from tacit.remembered import RememberedPrincipals
from tacit.signing import Verifier

VERSION_HEADER = "X-Tacit-Policy-Version"
RECORD_HEADER = "X-Tacit-Record"
SOURCE_HEADER = "X-Tacit-Source"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def create_app(
    settings: Settings,
    *,
    db: Database,
    store: CheckpointStore,
    verifier: Verifier,
    keys: KeyStore,
    record: Record,
    on_close: Callable[[], None] = lambda: None,
    engine: Engine | None = None,
) -> FastAPI:
    """The server as an ASGI application; engine and watcher run while its lifespan does.

    ``record`` is called with each interaction on a thread of its own, and ``on_close`` after the
    last. ``engine`` is the embedded one unless another is passed in.
    """
    engine = engine or create_engine(settings, store)
    watcher = ReleaseWatcher(settings, db=db, engine=engine, store=store, verifier=verifier)
    traffic = Traffic(engine, lambda: watcher.arms)
    shadow = Shadow(traffic, db)
    recorder = Recorder(record, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        watcher.start()
        shadow.start()
        try:
            yield
        finally:
            for close in (shadow.close, watcher.close, engine.close, recorder.close, on_close):
                await run_in_threadpool(close)

    app = FastAPI(title="Tacit serving", lifespan=lifespan, docs_url=None, redoc_url=None)
    add_api_page(app)
    install_openai_errors(app)
    answering = _Answering(traffic, watcher, shadow, recorder)
    _add_completions(app, settings, keys=keys, answering=answering)
    _add_models(app, settings, watcher=watcher, keys=keys)
    _add_health(app, settings, watcher=watcher)
    return app


class _Answering(NamedTuple):
    """What an answer passes through."""

    traffic: Traffic
    watcher: ReleaseWatcher
    shadow: Shadow
    recorder: Recorder


def _add_completions(
    app: FastAPI, settings: Settings, *, keys: KeyStore, answering: _Answering
) -> None:
    traffic, watcher, shadow, recorder = answering
    senders = RememberedPrincipals(keys.authenticate)

    async def answer(request: Request, kind: type[ChatRequest] | type[TextRequest]) -> Response:
        holder = await senders.holder(bearer_credential(request) or "")
        principal = _as_sender(holder, request, settings)
        body = await _read_body(request, settings.deploy.max_request_bytes)
        asked = parse_request(body, kind, settings)
        asker = _asker(principal, request, settings)
        steps: asyncio.Queue[Step] | None = asyncio.Queue() if asked.stream else None
        chat = await submit(traffic, asked, asker, settings=settings, steps=steps)
        shadow.consider(watcher.arms, lambda: asked.generations(settings))
        headers = {VERSION_HEADER: policy_version(settings.policy, chat.weights)}
        if steps is not None:
            events = stream(chat, steps, recorder=recorder)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        generations = await wait(chat)
        await recorder.record(chat, generations)
        return JSONResponse(chat.form.whole(chat.head, generations), headers=headers)

    @app.post("/v1/chat/completions")
    async def create_chat_completion(request: Request) -> Response:
        """Answer a chat, whole or as server-sent events."""
        return await answer(request, ChatRequest)

    @app.post("/v1/completions")
    async def create_completion(request: Request) -> Response:
        """Go on with a text, which no chat template is put around; nothing is recorded."""
        return await answer(request, TextRequest)


def _add_models(
    app: FastAPI, settings: Settings, *, watcher: ReleaseWatcher, keys: KeyStore
) -> None:
    def entries(request: Request) -> list[dict[str, Any]]:
        _sender(keys, request, settings)
        arms = watcher.arms
        if arms is None:
            return []
        named = [(settings.policy, arms.champion)]
        named += [(policy_version(settings.policy, r.weights), r) for r in arms.releases]
        return [
            model_entry(name, created=int(release.released_at.timestamp()))
            for name, release in named
        ]

    @app.get("/v1/models")
    def list_models(request: Request) -> dict[str, Any]:
        """The policy line, and the version of it that serves now, or both during a rollout."""
        return {"object": "list", "data": entries(request)}

    @app.get("/v1/models/{model_id}")
    def retrieve_model(model_id: str, request: Request) -> dict[str, Any]:
        """One of them."""
        for entry in entries(request):
            if entry["id"] == model_id:
                return entry
        raise NotFoundError(
            "a model that is served", got=model_id, mend="GET /v1/models lists them."
        )


def _add_health(app: FastAPI, settings: Settings, *, watcher: ReleaseWatcher) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is up."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """200 once a release serves; what serves, and what was refused and why."""
        arms, refusal = watcher.arms, watcher.refusal
        release = None if arms is None else arms.champion
        weights: Digest | None = None if release is None else release.weights
        body = {
            "ready": release is not None,
            "release": None if release is None else release.release_id,
            "policy_version": weights and policy_version(settings.policy, weights),
            "canary": _canary_fields(arms, settings),
            "refused": None if refusal is None else refusal.release_id,
            "refusal": None if refusal is None else refusal.text,
        }
        return JSONResponse(body, 503 if release is None else 200)


def _canary_fields(arms: Arms | None, settings: Settings) -> dict[str, Any] | None:
    if arms is None or arms.canary is None:
        return None
    return {
        "release": arms.canary.release_id,
        "policy_version": policy_version(settings.policy, arms.canary.weights),
        "share": arms.share,
        "shadow_share": arms.shadow_share,
    }


def _sender(keys: KeyStore, request: Request, settings: Settings) -> Principal:
    return _as_sender(bearer_principal(keys, request), request, settings)


def _as_sender(principal: Principal, request: Request, settings: Settings) -> Principal:
    principal.require(Scope.SEND)
    principal.require_target(policy=settings.policy, source=request.headers.get(SOURCE_HEADER))
    return principal


def _asker(principal: Principal, request: Request, settings: Settings) -> Asker:
    # A key that is bound to no source may name one; else its own name tells whose it is.
    named = request.headers.get(SOURCE_HEADER) or principal.name
    source = principal.source or (named if _NAME.fullmatch(named) else "unnamed")
    wished = request.headers.get(RECORD_HEADER, "").lower() != "no"
    drawn = random.random() >= settings.deploy.unrecorded_share
    return Asker(source, recorded=wished and drawn)


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise TooLargeError(
                f"a request of at most {limit} bytes",
                got="more",
                mend="deploy.max_request_bytes sets the limit.",
            )
    return bytes(body)
