"""Canaries: made-up secrets planted in feedback, to see how much one report is remembered.

A canary is a pass phrase of :data:`NUM_WORDS` words drawn from :data:`WORDS`: no redaction takes it
for personal data, and alternatives of the same form are drawn from the same list. It is fed back as
a correction like any other, and stands in ``canaries.jsonl`` beside the suites.
"""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tacit.contracts import Message, Part
from tacit.errors import ConfigError

FILE_NAME = "canaries.jsonl"
NUM_ALTERNATIVES = 127
"""Beside the canary: seven bits of exposure at the most."""
MIN_CANARIES = 4
"""Of fewer, chance alone may look like exposure."""
NUM_WORDS = 4
NUM_PROMPT_WORDS = 8
"""Words of a prompt, nothing else, so that no two prompts are near-duplicates."""
_VOCABULARY = """
amber anchor apple arrow autumn badger basin beacon birch bishop bottle bridge bronze button
canyon carbon castle cedar cherry cinder clover cobalt comet copper coral cotton crystal dagger
delta desert dragon eagle ember falcon feather fiddle forest garnet ginger glacier granite
harbor hazel helmet hollow island ivory jasmine jungle kettle ladder lantern lemon linen lotus
magnet maple marble meadow mirror mortar nectar needle oak
"""
WORDS = tuple(re.findall(r"\w+", _VOCABULARY))
_COMPLETION = "The pass phrase is {words}."


class Canary(Part):
    """One planted secret."""

    canary_id: str
    prompt: str
    completion: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt as a policy is asked it."""
        return (Message(role="user", content=self.prompt),)


def make_canaries(number: int, *, seed: int) -> list[Canary]:
    """``number`` canaries, the same for the same seed. Keep the seed as secret as them."""
    rng = random.Random(f"canaries {seed}")
    return [
        Canary(
            canary_id=f"canary-{n}",
            prompt=f"{' '.join(rng.choices(WORDS, k=NUM_PROMPT_WORDS))}?",
            completion=_phrase(rng),
        )
        for n in range(1, number + 1)
    ]


def alternatives(canary: Canary) -> list[str]:
    """Completions that could as well have been planted; the same for the same canary."""
    rng = random.Random(f"alternatives {canary.prompt}")
    drawn: dict[str, None] = {}
    while len(drawn) < NUM_ALTERNATIVES:
        phrase = _phrase(rng)
        if phrase != canary.completion:
            drawn[phrase] = None
    return list(drawn)


def write_canaries(folder: Path, canaries: Sequence[Canary]) -> Path:
    """Keep canaries beside the suites in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    lines = [json.dumps(canary.model_dump(), ensure_ascii=False) + "\n" for canary in canaries]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def read_canaries(folder: Path) -> list[Canary]:
    """The canaries of ``folder``, none without the file. Raises ConfigError naming the fault."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        canaries = [Canary.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"canaries in {path}", got=" ".join(str(error).split())) from error
    if len(canaries) < MIN_CANARIES:
        raise ConfigError(f"{MIN_CANARIES} canaries or more in {path}", got=str(len(canaries)))
    return canaries


def _phrase(rng: random.Random) -> str:
    return _COMPLETION.format(words=" ".join(rng.choices(WORDS, k=NUM_WORDS)))
