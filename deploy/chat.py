"""One request from submission to answer: submit, wait or stream, and record it.

Everything that blocks runs on threads; the event loop only waits on futures. Before the end of an
answer goes out its interaction is handed to ``record`` on a thread of its own, and waited for, so
that it survives a crash; but no longer than a moment, so that recording never delays an answer.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from deploy.arms import Arms, Assignment, assign
from deploy.engines.base import Delta, Generation, Ticket
from deploy.openai_format import answer_head, policy_version
from deploy.openai_forms import ChatForm, Form, TextForm
from deploy.openai_requests import ChatRequest, TextRequest
from deploy.traffic import Traffic
from tacit.config import Settings
from tacit.contracts import Digest, Interaction, utc_now
from tacit.errors import TacitError

logger = logging.getLogger(__name__)

RECORD_WAIT_S = 0.05
"""How long the end of an answer waits for its interaction to be on disk."""

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
    """A request whose generations are submitted."""

    policy: str
    request: ChatRequest | TextRequest
    asker: Asker
    assignment: Assignment
    tickets: list[Ticket]
    answer_id: str
    asked_at: datetime
    form: Form

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
    """Hands interactions on without making anyone wait for long."""

    def __init__(self, record: Record, settings: Settings) -> None:
        self._record = record
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")

    async def record(self, chat: Chat, generations: Sequence[Generation]) -> None:
        """Record every choice, unless the asker wished otherwise.

        Returns when they are handed on, or after ``RECORD_WAIT_S``, while it goes on. A completion
        of bare text is not recorded: its prompt is no chat, and feedback is learned from as chat.
        """
        if not chat.asker.recorded or not isinstance(chat.request, ChatRequest):
            return
        handed_on = self._thread.submit(self._record_all, chat, chat.request, list(generations))
        await asyncio.wait([asyncio.wrap_future(handed_on)], timeout=RECORD_WAIT_S)

    def close(self) -> None:
        """Wait until all is handed on."""
        self._thread.shutdown(wait=True)

    def _record_all(self, chat: Chat, request: ChatRequest, generations: list[Generation]) -> None:
        prompt = request.prompt()
        for choice, generation in enumerate(generations):
            sampling = request.sampling(self._settings, choice=choice)
            try:
                self._record(
                    Interaction(
                        # The first choice has the answer's id, the others ``id.1``, …
                        interaction_id=f"{chat.answer_id}.{choice}" if choice else chat.answer_id,
                        policy=chat.policy,
                        source=chat.asker.source,
                        subject_id=request.user,
                        episode_id=request.episode,
                        occurred_at=chat.asked_at,
                        prompt=prompt,
                        # PostgreSQL cannot store NUL, which a byte-level policy may well say.
                        completion=generation.text.replace("\x00", ""),
                        policy_version=policy_version(chat.policy, generation.weights),
                        completion_ids=generation.token_ids,
                        logprobs=generation.logprobs,
                        sampling=sampling,
                        template_digest=generation.template_digest,
                        arm=chat.assignment.arm,
                        arm_probability=chat.assignment.probability,
                    )
                )
            except (TacitError, ValidationError, OSError) as error:
                logger.warning("%s could not be recorded: %s", chat.answer_id, error)


async def submit(
    traffic: Traffic,
    request: ChatRequest | TextRequest,
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

    def draw(arms: Arms) -> Assignment:
        return assign(arms, model=request.model, subject=request.user, episode=request.episode)

    assignment, tickets = await run_in_threadpool(traffic.submit, generations, draw)
    if steps is not None:
        for choice, ticket in enumerate(tickets):
            ticket.future.add_done_callback(_ender(steps, choice))
    form = _form_of(request)
    answer_id = form.id_prefix + uuid.uuid4().hex
    return Chat(settings.policy, request, asker, assignment, tickets, answer_id, utc_now(), form)


async def wait(chat: Chat) -> list[Generation]:
    """All choices, finished."""
    try:
        return await asyncio.gather(*(asyncio.wrap_future(t.future) for t in chat.tickets))
    finally:
        abandon(chat)


def _form_of(request: ChatRequest | TextRequest) -> Form:
    if isinstance(request, ChatRequest):
        return ChatForm(with_logprobs=request.logprobs, choices_per_prompt=request.n)
    return TextForm(with_logprobs=request.logprobs is not None, choices_per_prompt=request.n)


def _teller(steps: "asyncio.Queue[Step]", choice: int) -> Callable[[Delta], None]:
    loop = asyncio.get_running_loop()
    return lambda delta: _put(loop, steps, (choice, delta))


def _ender(steps: "asyncio.Queue[Step]", choice: int) -> Callable[["Future[Generation]"], None]:
    loop = asyncio.get_running_loop()
    return lambda _future: _put(loop, steps, (choice, None))


def _put(loop: asyncio.AbstractEventLoop, steps: "asyncio.Queue[Step]", step: Step) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(steps.put_nowait, step)


def abandon(chat: Chat) -> None:
    """Nobody waits any more for what is not finished."""
    for ticket in chat.tickets:
        ticket.abandon()
