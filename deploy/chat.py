"""One chat completion from request to answer: submit, wait or stream, and record it.

Everything that blocks runs on threads; the event loop only waits on futures. An interaction is
handed to ``record`` on a thread of its own, so that recording never delays an answer.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from deploy.engines.base import Delta, Engine, Generation, Ticket
from deploy.openai_format import (
    answer_head,
    chunk,
    error_body,
    policy_version,
    tacit_error_body,
    usage_chunk,
)
from deploy.openai_requests import ChatRequest
from tacit.config import Settings
from tacit.contracts import Digest, Interaction, utc_now
from tacit.errors import TacitError

logger = logging.getLogger(__name__)

Record = Callable[[Interaction], None]
Step = tuple[int, Delta | None]
"""Choice, and what was added to it; None when it is done."""


@dataclass(frozen=True)
class Asker:
    """On whose behalf a request is answered."""

    source: str
    recorded: bool


@dataclass(frozen=True)
class Chat:
    """A chat completion whose requests are submitted."""

    policy: str
    request: ChatRequest
    asker: Asker
    tickets: list[Ticket]
    answer_id: str
    asked_at: datetime

    @property
    def weights(self) -> Digest:
        """Checkpoint that answers, the same for all choices."""
        return self.tickets[0].weights

    @property
    def head(self) -> dict[str, object]:
        """What the answer and all its events have in common."""
        return answer_head(
            self.answer_id,
            weights=self.weights,
            policy=self.policy,
            created=int(self.asked_at.timestamp()),
        )


class Recorder:
    """Hands interactions on without making anyone wait."""

    def __init__(self, record: Record, settings: Settings) -> None:
        self._record = record
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")

    def record(self, chat: Chat, generations: Sequence[Generation]) -> None:
        """Record every choice, unless the asker wished otherwise."""
        if chat.asker.recorded:
            self._thread.submit(self._record_all, chat, list(generations))

    def close(self) -> None:
        """Wait until all is handed on."""
        self._thread.shutdown(wait=True)

    def _record_all(self, chat: Chat, generations: list[Generation]) -> None:
        for choice, generation in enumerate(generations):
            try:
                self._record(interaction_of(chat, choice, generation, settings=self._settings))
            except (TacitError, ValidationError, OSError) as error:
                logger.warning("%s could not be recorded: %s", chat.answer_id, error)


def interaction_of(
    chat: Chat, choice: int, generation: Generation, *, settings: Settings
) -> Interaction:
    """The interaction of one choice: the first has the answer's id, the others ``id.1``, …"""
    request = chat.request
    return Interaction(
        interaction_id=chat.answer_id if choice == 0 else f"{chat.answer_id}.{choice}",
        policy=settings.policy,
        source=chat.asker.source,
        subject_id=request.user,
        episode_id=request.metadata.episode_id,
        occurred_at=chat.asked_at,
        prompt=request.prompt(),
        # PostgreSQL cannot store NUL, which a byte-level policy may well say.
        completion=generation.text.replace("\x00", ""),
        policy_version=policy_version(settings.policy, generation.weights),
        completion_ids=generation.token_ids,
        logprobs=generation.logprobs,
        sampling=request.sampling(settings, choice=choice),
    )


async def submit(
    engine: Engine,
    request: ChatRequest,
    asker: Asker,
    *,
    settings: Settings,
    steps: "asyncio.Queue[Step] | None" = None,
) -> Chat:
    """Queue all choices of ``request``; with ``steps`` what they add is put there.

    Raises what ``Engine.submit`` raises, and InvalidInputError.
    """
    generations = request.generations(settings)
    if steps is not None:
        generations = [
            replace(generation, on_delta=_teller(steps, choice))
            for choice, generation in enumerate(generations)
        ]
    tickets = await run_in_threadpool(engine.submit, generations)
    if steps is not None:
        for choice, ticket in enumerate(tickets):
            ticket.future.add_done_callback(_ender(steps, choice))
    return Chat(settings.policy, request, asker, tickets, f"chatcmpl-{uuid.uuid4().hex}", utc_now())


async def wait(chat: Chat) -> list[Generation]:
    """All choices, finished."""
    try:
        return await asyncio.gather(*(asyncio.wrap_future(t.future) for t in chat.tickets))
    finally:
        _abandon(chat)


async def stream(
    chat: Chat, steps: "asyncio.Queue[Step]", *, recorder: Recorder
) -> AsyncIterator[str]:
    """Server-sent events of ``chat``, ended by ``[DONE]``; what goes wrong comes as an event."""
    try:
        async for event in _events(chat, steps):
            yield _sse(event)
        generations = [ticket.future.result(timeout=0) for ticket in chat.tickets]
        recorder.record(chat, generations)
        options = chat.request.stream_options
        if options is not None and options.include_usage:
            yield _sse(usage_chunk(chat.head, generations))
        yield "data: [DONE]\n\n"
    except TacitError as error:
        yield _sse(tacit_error_body(error))
    except Exception as error:  # the status line is sent already: say it in the stream
        logger.exception("%s failed while streaming", chat.answer_id)
        yield _sse(error_body(type(error).__name__, kind="server_error", code="internal_error"))
    finally:
        _abandon(chat)


async def _events(chat: Chat, steps: "asyncio.Queue[Step]") -> AsyncIterator[dict[str, object]]:
    unfinished = len(chat.tickets)
    for choice in range(unfinished):
        yield chunk(chat.head, choice, delta={"role": "assistant", "content": ""})
    while unfinished:
        choice, delta = await steps.get()
        if delta is None:
            generation = chat.tickets[choice].future.result(timeout=0)
            yield chunk(chat.head, choice, finish_reason=generation.finish_reason)
            unfinished -= 1
        elif delta.text or chat.request.logprobs:
            tokens = delta if chat.request.logprobs else None
            yield chunk(chat.head, choice, delta={"content": delta.text}, tokens=tokens)


def _teller(steps: "asyncio.Queue[Step]", choice: int) -> Callable[[Delta], None]:
    loop = asyncio.get_running_loop()
    return lambda delta: _put(loop, steps, (choice, delta))


def _ender(steps: "asyncio.Queue[Step]", choice: int) -> Callable[["Future[Generation]"], None]:
    loop = asyncio.get_running_loop()
    return lambda _future: _put(loop, steps, (choice, None))


def _put(loop: asyncio.AbstractEventLoop, steps: "asyncio.Queue[Step]", step: Step) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(steps.put_nowait, step)


def _abandon(chat: Chat) -> None:
    for ticket in chat.tickets:
        ticket.abandon()


def _sse(body: dict[str, object]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
