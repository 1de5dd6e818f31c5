"""A tiny policy that does what it reads: teachers must be able to use what only they are told.

It says "billing" to everything, and another of two words where a note in the prompt names it; asked
for reasons, it gives them before its answer.
"""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Correction, Digest, Message, ScreenedEvent
from tests import builders as build
from tests.trainer.builders import settings, train
from trainer.hindsight import DEMONSTRATION, with_hindsight, with_note

WORDS = ("billing", "shipping")
INSTRUCTION, HINT = "why?", "it is {answer}"


def question(number: int) -> str:
    """A prompt; those from 100 on are never learned from in tests."""
    return f"where is order {number}"


def reasoned(word: str) -> str:
    """A rationale with its answer."""
    return f"order Answer: {word}"


def _said(name: str, prompt: tuple[Message, ...], answer: str) -> ScreenedEvent:
    event = build.screened(name, completion=answer, feedback=Correction(completion=answer))
    said = event.interaction.model_copy(update={"prompt": prompt})
    return event.model_copy(update={"interaction": said})


def _lessons(number: int) -> list[ScreenedEvent]:
    prompt = build.user(question(number))
    lessons = [(prompt, WORDS[0]), (with_note(prompt, INSTRUCTION), reasoned(WORDS[0]))]
    for word in WORDS:
        hinted = f"{INSTRUCTION} {HINT.replace('{answer}', word)}"
        lessons += [
            (with_note(prompt, DEMONSTRATION.format(text=word)), word),
            (with_hindsight(prompt, f"say {word}"), word),
            (with_note(prompt, hinted), reasoned(word)),
        ]
    return [_said(f"{number}-{i}", *lesson) for i, lesson in enumerate(lessons)]


@cache
def _trained() -> tuple[CheckpointStore, Digest]:
    store = CheckpointStore(Path(mkdtemp(prefix="tacit-reader-")))
    lessons = [event for number in range(100, 112) for event in _lessons(number)]
    chosen = settings(full_fine_tuning=True, batch_size=32, num_epochs=48, learning_rate=1e-2)
    digest, _ = train(store, build.tiny_checkpoint(store), lessons, settings=chosen)
    return store, digest


def reading_checkpoint(store: CheckpointStore) -> Digest:
    """Put the policy into ``store``; it is trained once a test session, in seconds."""
    source, digest = _trained()
    return store.put(source.path(digest))
