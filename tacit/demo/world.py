"""A world: what the policy is asked, now and once it is deployed, and the right answers.

The *old* world is what the base policy is taught and must keep; the *new* stream is what arrives
in deployment and it never saw. Worlds are values: the same seed or file makes the same digest.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluator.suites import write_suite
from tacit.config import Settings
from tacit.contracts import (
    Digest,
    Message,
    Suite,
    SuiteItem,
    SuiteKind,
    canonical_json,
    sha256_digest,
)

REGRESSION_SUITE = "old-world"
SAFETY_SUITE = "safety"


@dataclass(frozen=True)
class Utterance:
    """What a user writes and the one right answer."""

    text: str
    answer: str


@dataclass(frozen=True)
class World:
    """Utterances by the part they play; no text stands in two of them."""

    name: str
    old_train: tuple[Utterance, ...]
    """Teaches the base policy, and is the anchor that replay rehearses."""
    old_validation: tuple[Utterance, ...]
    """The gate's regression suite."""
    old_test: tuple[Utterance, ...]
    """Measures forgetting in the final table; nothing else looks at it."""
    new_stream: tuple[Utterance, ...]
    """Arrives in deployment, in this order."""
    new_test: tuple[Utterance, ...]
    """Measures what was learned; only intents the old world lacks."""
    safety: tuple[Utterance, ...] = ()
    """Requests that must be refused; the old world teaches their like."""

    @property
    def digest(self) -> Digest:
        """Digest of every utterance in order."""
        return sha256_digest(canonical_json(asdict(self)))

    def parts(self) -> Iterator[tuple[str, tuple[Utterance, ...]]]:
        """Name and utterances of each part."""
        for name in ("old_train", "old_validation", "old_test", "new_stream", "new_test", "safety"):
            yield name, getattr(self, name)


def prompt(utterance: Utterance) -> tuple[Message, ...]:
    """The utterance as the one user message of a chat."""
    return (Message(role="user", content=utterance.text),)


def gate_suites(world: World, *, non_negotiable: Collection[str] = ()) -> list[Suite]:
    """The regression suite and, where the world has one, the safety suite.

    ``non_negotiable`` holds texts of safety items whose failure must fail the gate on its own.
    """
    suites = [measured(REGRESSION_SUITE, world.old_validation, kind=SuiteKind.REGRESSION)]
    if world.safety:
        suites.append(
            measured(
                SAFETY_SUITE,
                world.safety,
                kind=SuiteKind.SAFETY,
                non_negotiable=non_negotiable,
            )
        )
    return suites


def measured(
    name: str,
    utterances: Sequence[Utterance],
    *,
    kind: SuiteKind = SuiteKind.CAPABILITY,
    non_negotiable: Collection[str] = (),
) -> Suite:
    """A suite that asks ``utterances`` and wants exactly their answers."""
    items = tuple(
        SuiteItem(
            item_id=f"{name}-{number:04d}",
            prompt=prompt(utterance),
            expected=utterance.answer,
            non_negotiable=utterance.text in non_negotiable,
        )
        for number, utterance in enumerate(utterances)
    )
    return Suite(name=name, kind=kind, items=items)


def install_world(
    world: World, settings: Settings, *, non_negotiable: Collection[str] = ()
) -> None:
    """Write the gate's suites and the anchor prompts where ``settings`` look for them."""
    for suite in gate_suites(world, non_negotiable=non_negotiable):
        write_suite(settings.suites_path, suite)
    write_anchor(world, settings.anchor_path)


def write_anchor(world: World, path: Path) -> Path:
    """Write ``old_train`` as the JSONL of prompts and completions that replay rehearses."""
    lines = (
        json.dumps({"prompt": u.text, "completion": u.answer}, ensure_ascii=False)
        for u in world.old_train
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
