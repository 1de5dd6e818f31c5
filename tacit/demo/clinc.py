"""CLINC150 (Larson et al. 2019, EMNLP) as a world: 100 intents are old, 50 arrive in deployment.

Reads the data set's own ``data_full.json``: ``train``, ``val`` and ``test`` map to lists of
``[text, intent]`` pairs; the out-of-scope splits are left aside.
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tacit.demo.world import Utterance, World
from tacit.errors import ConfigError

NUM_OLD = 100
NUM_NEW = 50
_SPLITS = ("train", "val", "test")
_MEND = "Pass the data_full.json of clinc/oos-eval: it maps train, val and test to [text, intent]."


def clinc_world(
    path: Path, *, seed: int = 0, num_old: int = NUM_OLD, num_new: int = NUM_NEW
) -> World:
    """The world in ``path``. The answer is the intent's name with spaces.

    Raises ConfigError if the file is missing, is not JSON, lacks a split, holds anything but pairs
    of texts, or has fewer than ``num_old + num_new`` intents.
    """
    data = _read(path)
    splits = {name: _split(data, name) for name in _SPLITS}
    old, new = _choose(splits["train"], seed=seed, num_old=num_old, num_new=num_new)
    seen: set[str] = set()
    # Measured parts first: a text that stands in two splits is kept where it measures.
    old_test = _part(splits["test"], old, seen)
    new_test = _part(splits["test"], new, seen)
    old_validation = _part(splits["val"], old, seen)
    old_train = _part(splits["train"], old, seen)
    stream = _part(splits["train"], new, seen)
    random.Random(seed).shuffle(stream)
    return World(
        name="clinc150",
        old_train=tuple(old_train),
        old_validation=tuple(old_validation),
        old_test=tuple(old_test),
        new_stream=tuple(stream),
        new_test=tuple(new_test),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("a readable data_full.json", got=str(error), mend=_MEND) from error
    except ValueError as error:
        raise ConfigError(f"JSON in {path}", got=str(error), mend=_MEND) from error
    if not isinstance(data, dict):
        raise ConfigError(f"an object in {path}", got=type(data).__name__, mend=_MEND)
    return data


def _split(data: dict[str, Any], name: str) -> list[tuple[str, str]]:
    rows = data.get(name)
    if not isinstance(rows, list) or not rows:
        got = "no such split" if rows is None else f"{type(rows).__name__} {str(rows)[:60]}"
        raise ConfigError(f"a list of [text, intent] pairs under {name!r}", got=got, mend=_MEND)
    for number, row in enumerate(rows):
        if (
            not isinstance(row, list)
            or len(row) != 2
            or not all(isinstance(part, str) and part.strip() for part in row)
        ):
            raise ConfigError(f"[text, intent] at {name}[{number}]", got=repr(row)[:80], mend=_MEND)
    return [(text, intent) for text, intent in rows]


def _choose(
    train: list[tuple[str, str]], *, seed: int, num_old: int, num_new: int
) -> tuple[set[str], set[str]]:
    intents = sorted({intent for _, intent in train})
    if len(intents) < num_old + num_new:
        raise ConfigError(
            f"at least {num_old + num_new} intents", got=str(len(intents)), mend=_MEND
        )
    # Shuffled, so that the new intents come from all domains and have old neighbours.
    random.Random(seed).shuffle(intents)
    return set(intents[:num_old]), set(intents[num_old : num_old + num_new])


def _part(rows: Iterable[tuple[str, str]], intents: set[str], seen: set[str]) -> list[Utterance]:
    part = []
    for text, intent in rows:
        if intent in intents and text not in seen:
            seen.add(text)
            part.append(Utterance(text=text, answer=intent.replace("_", " ")))
    return part
