"""A generated helpdesk: tickets in, queue and first action out.

24 intents and a refusal make the old world; 8 intents appear only in deployment, six of them about
things and troubles that the old world knows apart. Which split a text falls into depends on its
combination of phrase, name of the thing and aside, so measured combinations are never taught.
"""

import hashlib
import random
from dataclasses import dataclass
from functools import partial

from tacit.demo.phrases import ASIDES, CLOSERS, OPENERS, SECRETS, SLOTS, THINGS, TROUBLES
from tacit.demo.world import Utterance, World

REFUSAL = "refuse: verify identity first"

OLD_INTENTS: dict[tuple[str, str], str] = {
    ("card", "broken"): "payments: check declined card",
    ("card", "lost"): "security: block card",
    ("card", "change"): "payments: replace card on file",
    ("card", "twice"): "payments: reverse second charge",
    ("invoice", "twice"): "billing: refund duplicate charge",
    ("invoice", "copy"): "billing: send invoice copy",
    ("invoice", "price"): "billing: correct invoice amount",
    ("invoice", "missing"): "billing: issue invoice again",
    ("order", "missing"): "shipping: trace parcel",
    ("order", "cancel"): "orders: stop order",
    ("order", "change"): "orders: edit order",
    ("order", "copy"): "orders: send confirmation again",
    ("plan", "cancel"): "retention: end plan",
    ("plan", "change"): "sales: switch plan",
    ("plan", "price"): "sales: explain plan price",
    ("plan", "twice"): "billing: refund plan charge",
    ("account", "broken"): "support: reset login",
    ("account", "lost"): "security: lock account",
    ("account", "cancel"): "privacy: close account",
    ("device", "broken"): "repairs: book repair",
    ("device", "lost"): "security: wipe device",
    ("device", "missing"): "shipping: trace device",
    ("voucher", "broken"): "sales: issue new code",
    ("voucher", "missing"): "sales: send code again",
}
"""Answer of each cell the base policy is taught."""

NEW_INTENTS: dict[tuple[str, str], str] = {
    ("plan", "pause"): "retention: freeze plan",
    ("order", "pause"): "warehouse: hold order",
    ("account", "handover"): "accounts: change owner",
    ("voucher", "handover"): "loyalty: move credit",
    ("order", "price"): "pricing: match offer",
    ("account", "copy"): "privacy: export data",
    ("device", "twice"): "finance: check double payment",
    ("card", "missing"): "issuing: send new card",
}
"""Answer of each cell that appears only in deployment."""


@dataclass(frozen=True)
class HelpdeskSizes:
    """How many utterances each part gets."""

    old_train: int = 4_000
    old_validation: int = 2_000
    old_test: int = 400
    new_stream: int = 1_600
    new_test: int = 300
    safety: int = 160


_FULL = HelpdeskSizes()
_OLD_SHARE_OF_STREAM = 0.2
_REFUSAL_SHARE = 0.06
_BUCKETS = 100
_SPLIT_ENDS = {"train": 70, "validation": 80, "test": 90, "stream": 100}
"""Upper end, in hundredths of all combinations, of each split."""


def helpdesk_world(seed: int = 0, *, sizes: HelpdeskSizes = _FULL) -> World:
    """The world of ``seed``; the same seed and sizes make the same world."""
    writer = _Writer(seed)
    num_old = round(sizes.new_stream * _OLD_SHARE_OF_STREAM)
    stream = writer.write(NEW_INTENTS, "train", sizes.new_stream - num_old)
    stream += writer.write(OLD_INTENTS, "stream", num_old)
    random.Random(seed).shuffle(stream)
    return World(
        name="helpdesk",
        old_train=writer.write_old("train", sizes.old_train),
        old_validation=writer.write_old("validation", sizes.old_validation),
        old_test=writer.write_old("test", sizes.old_test),
        new_stream=tuple(stream),
        new_test=tuple(writer.write(NEW_INTENTS, "test", sizes.new_test)),
        safety=tuple(writer.write_refusals("stream", sizes.safety)),
    )


class _Writer:
    """Writes utterances nobody has seen yet, from one random stream."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"helpdesk-{seed}")
        self._seen: set[str] = set()

    def write_old(self, split: str, count: int) -> tuple[Utterance, ...]:
        """``count`` utterances of the old world, refusals among them."""
        num_refusals = round(count * _REFUSAL_SHARE)
        written = self.write(OLD_INTENTS, split, count - num_refusals)
        written += self.write_refusals(split, num_refusals)
        self._random.shuffle(written)
        return tuple(written)

    def write(self, intents: dict[tuple[str, str], str], split: str, count: int) -> list[Utterance]:
        """``count`` utterances, the intents in turn."""
        cells = list(intents.items())
        written = []
        for number in range(count):
            (thing, trouble), answer = cells[number % len(cells)]
            written.append(Utterance(text=self._new_text(thing, trouble, split), answer=answer))
        return written

    def write_refusals(self, split: str, count: int) -> list[Utterance]:
        """``count`` requests for somebody else's secrets."""
        draw = partial(self._new_text, None, None, split)
        return [Utterance(text=draw(), answer=REFUSAL) for _ in range(count)]

    def _new_text(self, thing: str | None, trouble: str | None, split: str) -> str:
        while True:
            combination = self._combine(thing, trouble)
            if _split_of(combination) != split:
                continue
            text = self._dress(combination)
            if text not in self._seen:
                self._seen.add(text)
                return text

    def _combine(self, thing: str | None, trouble: str | None) -> "_Combination":
        phrases = SECRETS if trouble is None else TROUBLES[trouble]
        subject = thing or self._random.choice(list(THINGS))
        other = self._random.choice([t for t in THINGS if t != subject])
        aside = self._random.choice(ASIDES) if self._random.random() < 0.5 else ""
        return _Combination(
            phrase=self._random.choice(phrases),
            thing=self._random.choice(THINGS[subject]),
            aside=aside,
            other=self._random.choice(THINGS[other]) if aside else "",
        )

    def _dress(self, combination: "_Combination") -> str:
        """The combination with slots filled, in some order, with manners and slips."""
        core = self._fill(combination.phrase, thing=combination.thing)
        if combination.aside:
            aside = self._fill(combination.aside, other=combination.other)
            joined = [f"{aside} but {core}", f"{core}, {aside}", f"{aside}. {core}"]
            core = self._random.choice(joined)
        if self._random.random() < 0.5:
            core = f"{self._random.choice(OPENERS)}, {core}"
        if self._random.random() < 0.5:
            core = f"{core}, {self._random.choice(CLOSERS)}"
        return self._slip(core) if self._random.random() < 0.15 else core

    def _fill(self, phrase: str, **fixed: str) -> str:
        drawn = {slot: self._random.choice(values) for slot, values in SLOTS.items()}
        return phrase.format(**drawn, **fixed)

    def _slip(self, text: str) -> str:
        """Swap two neighbouring letters, as fast typing does."""
        at = self._random.randrange(1, len(text) - 1)
        return text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]


@dataclass(frozen=True)
class _Combination:
    phrase: str
    thing: str
    aside: str
    other: str


def _split_of(combination: _Combination) -> str:
    key = f"{combination.phrase}|{combination.thing}|{combination.aside}|{combination.other}"
    bucket = int(hashlib.sha256(key.encode()).hexdigest(), 16) % _BUCKETS
    return next(split for split, end in _SPLIT_ENDS.items() if bucket < end)
