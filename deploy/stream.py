"""Answers as server-sent events, in bunches of what has come in by the time the last was sent."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from deploy.chat import Chat, Recorder, Step, abandon
from deploy.openai_format import error_body, tacit_error_body
from tacit.errors import TacitError

logger = logging.getLogger(__name__)


async def stream(
    chat: Chat, steps: "asyncio.Queue[Step]", *, recorder: Recorder
) -> AsyncIterator[str]:
    """Server-sent events of ``chat``, ended by ``[DONE]``; what goes wrong comes as an event."""
    try:
        async for events in _events(chat, steps):
            yield "".join(map(_sse, events))
        generations = [ticket.future.result(timeout=0) for ticket in chat.tickets]
        await recorder.record(chat, generations)
        if chat.request.wants_usage:
            yield _sse(chat.form.usage(chat.head, generations))
        yield "data: [DONE]\n\n"
    except TacitError as error:
        yield _sse(tacit_error_body(error))
    except Exception as error:  # the status line is sent already: say it in the stream
        logger.exception("%s failed while streaming", chat.answer_id)
        yield _sse(error_body(type(error).__name__, kind="server_error", code="internal_error"))
    finally:
        abandon(chat)


async def _events(
    chat: Chat, steps: "asyncio.Queue[Step]"
) -> AsyncIterator[list[dict[str, object]]]:
    """Events in bunches: what has come in by the time that the last bunch is sent goes together."""
    head, form, unfinished = chat.head, chat.form, len(chat.tickets)
    beginning = list(form.begin(head, unfinished))
    if beginning:
        yield beginning
    while unfinished:
        bunch = []
        for choice, delta in await _take_all(steps):
            if delta is None:
                generation = chat.tickets[choice].future.result(timeout=0)
                bunch.append(form.end(head, choice, generation.finish_reason))
                unfinished -= 1
            elif delta.text or form.with_logprobs:
                bunch.append(form.delta(head, choice, delta))
        if bunch:
            yield bunch


async def _take_all(steps: "asyncio.Queue[Step]") -> list[Step]:
    """What is in ``steps``, at least one."""
    taken = [await steps.get()]
    while not steps.empty():
        taken.append(steps.get_nowait())
    return taken


def _sse(body: dict[str, object]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
