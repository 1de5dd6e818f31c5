"""Which cells are run, in what order: what matters most comes first, for a run may be cut off."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from benchmarks.learning.arms import ADAPTER, ARMS, CEILING, DEFAULT
from benchmarks.learning.cell import Cell
from benchmarks.learning.variants import BASIC, VARIANTS

FROZEN = "frozen"
NEAREST = "rehearsed"
"""The arm that comes closest to the default on both axes."""
RIVALS = (ADAPTER, "full", NEAREST, "replay", "interpolation")
"""Arms that could dominate the default: also measured under noise."""
HEADLINE = (FROZEN, CEILING, DEFAULT, *RIVALS)
"""Arms with all seeds; the others have ``FEWER``."""
NUM_SEEDS = 5
FEWER = 3
NOISY = "noise-0.3"
OVERTURNED = "overturned"


def quick_cells(seeds: Sequence[int] = (0, 1)) -> list[Cell]:
    """What the figures of ``--quick`` need; of the rivals the nearest alone, on the first seed."""
    return [
        *(Cell(arm, BASIC, seed) for seed in seeds for arm in (FROZEN, CEILING, DEFAULT)),
        Cell(NEAREST, BASIC, seeds[0]),
        *(Cell(DEFAULT, variant, seed) for seed in seeds for variant in (NOISY, OVERTURNED)),
    ]


def full_cells() -> list[Cell]:
    """Everything: first what ``--quick`` measures with ``FEWER`` seeds, then the rest of it."""
    few, rest = range(FEWER), range(FEWER, NUM_SEEDS)
    cells = [
        *quick_cells(few),
        *_cells([CEILING], [OVERTURNED], few),
        *_cells([ADAPTER], [NOISY, OVERTURNED], few),
        *_cells(ARMS, [BASIC], few),
        *_cells([DEFAULT, ADAPTER], VARIANTS, few),
        *quick_cells(rest),
        *_cells(HEADLINE, [BASIC], rest),
        *_cells([DEFAULT], VARIANTS, rest),
        *_cells(RIVALS, [NOISY], few),
    ]
    return list(dict.fromkeys(cells))


def chosen_cells(
    cells: Sequence[Cell],
    *,
    arms: Sequence[str] = (),
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> list[Cell]:
    """Those of ``arms``, ``variants`` and ``seeds``, or all; with ``overrides``."""
    return [
        replace(cell, overrides=tuple(overrides))
        for cell in cells
        if (not arms or cell.arm in arms)
        and (not variants or cell.variant in variants)
        and (not seeds or cell.seed in seeds)
    ]


def _cells(arms: Iterable[str], variants: Iterable[str], seeds: Iterable[int]) -> Iterator[Cell]:
    return (Cell(arm, variant, seed) for arm in arms for variant in variants for seed in seeds)
