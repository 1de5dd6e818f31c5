"""What is measured after every round, and at the end on everything."""

from collections.abc import Mapping
from typing import Any

from benchmarks.learning.measure import (
    Answers,
    BaseView,
    Parts,
    accuracy,
    answer,
    backward_transfer,
    flips,
    parts,
    sample,
)
from benchmarks.learning.traffic import Traffic
from benchmarks.learning.world import neighbours
from tacit.demo.world import Utterance, World
from tacit.policies import Policy

Row = dict[str, Any]
"""Figures by name, as JSON has them."""


class Probes:
    """Asks the policies of one cell, in the order of its rounds."""

    def __init__(
        self,
        world: World,
        traffic: Traffic,
        base: Policy,
        *,
        sizes: Mapping[str, int],
        num_kl_items: int,
    ) -> None:
        """``sizes`` of the sample of each part that is asked after a round."""
        whole = {**parts(world), **_turned(world, traffic)}
        self._traffic = traffic
        self._whole: Parts = whole
        self._sample = sample(
            whole, {name: sizes.get(name, len(part)) for name, part in whole.items()}
        )
        kl_part = sample({"old": world.old_test}, {"old": num_kl_items})["old"]
        self._view = BaseView.of(base, kl_part)
        self._history: list[dict[int, float]] = []
        self._right: list[bool] = []

    def after(self, number: int, policy: Policy) -> Row:
        """Figures of ``policy`` after round ``number``, on the samples. 0 is the base."""
        said = answer(policy, self._sample)
        right = self._marks(said, number)
        lost = flips(self._right, right) if self._right else 0.0
        self._right = right
        arrived = self._arrived(said, number)
        if number > 0:
            self._history.append(arrived)
        return {
            "round": number,
            **self._accuracies(self._sample, said, number),
            "arrived": _mean(arrived),
            "backward_transfer": backward_transfer(self._history) if number > 0 else None,
            "flips": lost,
            "kl_to_base": self._view.kl(policy),
        }

    def whole(self, number: int, policy: Policy) -> Row:
        """Accuracies of ``policy`` after round ``number``, on everything."""
        return self._accuracies(self._whole, answer(policy, self._whole), number)

    def _accuracies(self, asked: Parts, said: Answers, number: int) -> Row:
        traffic = self._traffic
        found: Row = {
            name: accuracy(part, said[name], lambda u: traffic.right(u, number))
            for name, part in asked.items()
        }
        if "overturned" in asked:
            found["overturned_stale"] = accuracy(
                asked["overturned"], said["overturned"], lambda u: u.answer
            )
        return found

    def _marks(self, said: Answers, number: int) -> list[bool]:
        """Of what was known before deployment."""
        return [
            text == u.answer
            for name in ("old", "refusals")
            for u, text in zip(self._sample.get(name, ()), said.get(name, []), strict=True)
        ]

    def _arrived(self, said: Answers, number: int) -> dict[int, float]:
        """Accuracy on the intents of each round that has been."""
        groups: dict[int, list[bool]] = {}
        for u, text in zip(self._sample["new"], said["new"], strict=True):
            arrived = self._traffic.arrival[u.answer]
            if arrived <= number:
                groups.setdefault(arrived, []).append(text == self._traffic.right(u, number))
        return {arrived: sum(hits) / len(hits) for arrived, hits in sorted(groups.items())}


def _turned(world: World, traffic: Traffic) -> dict[str, tuple[Utterance, ...]]:
    """What tells of a rule that is overturned; nothing where none is."""
    if not traffic.overturned:
        return {}
    near = neighbours(world, traffic.overturned)
    return {
        "overturned": tuple(u for u in world.new_test if u.answer in traffic.overturned),
        "neighbours": tuple(u for u in world.old_test if u.answer in near),
    }


def _mean(values: Mapping[int, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None
