"""Tables and plots of the finished cells.

    python -m benchmarks.learning.draw [--cells docs/results/learning/cells.jsonl]

Writes tables.md, plane.svg and curves.svg beside the cells.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.learning.__main__ import CELLS
from benchmarks.learning.arms import ARMS, CEILING, DEFAULT
from benchmarks.learning.plan import FROZEN
from benchmarks.learning.probes import Row
from benchmarks.learning.rows import read_rows
from benchmarks.learning.summary import (
    Figures,
    Interval,
    by_arm,
    dominating,
    final,
    gain_gap,
    interval,
    neighbour_drop,
    old_drop,
)
from benchmarks.learning.variants import BASIC, VARIANTS

mpl.use("svg")
# The same cells make the same bytes.
mpl.rcParams.update({"svg.hashsalt": "tacit", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402

CURVES = {
    "new": "new intents, accuracy",
    "old": "old intents, accuracy",
    "refusals": "out-of-scope requests refused",
    "kl_to_base": "KL to the base on old prompts, nats",
}
MARKERS = "os^Dv<>ph8Pd"
LINES = ("-", "--", ":")
"""Of ten colours each: an arm has one colour in both plots."""


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path, default=CELLS)
    path: Path = parser.parse_args().cells
    figures = by_arm(read_rows(path))
    (path.parent / "tables.md").write_text("\n".join(tables(figures)) + "\n", encoding="utf-8")
    _plane(figures, path.parent / "plane.svg")
    _curves(figures, path.parent / "curves.svg")


def tables(figures: Figures) -> Iterator[str]:
    """Markdown: every arm in the basic variant, then the default and its rivals in the others."""
    yield "Means over seeds ± half the width of the 95 % interval (Student's t)."
    yield ""
    yield "## Arms, mixed feedback without noise"
    yield ""
    yield from _table(figures, [(arm, BASIC) for arm in ARMS], first=lambda arm, _: ARMS[arm].title)
    yield ""
    better = dominating(figures)
    yield f"At least as good as the default on both axes: {', '.join(better) or 'none'}."
    yield ""
    yield "## Variants of the feedback"
    yield ""
    keys = [(arm, variant) for variant in VARIANTS for arm in ARMS if variant != BASIC]
    yield from _table(
        figures, keys, first=lambda arm, variant: f"{variant}, {ARMS[arm].title.lower()}"
    )
    yield ""
    yield from _turned(figures)


def _table(
    figures: Figures, keys: Sequence[tuple[str, str]], *, first: Callable[[str, str], str]
) -> Iterator[str]:

    yield (
        "| | seeds | new intents | below joint | old intents lose | refused | backward transfer "
        "| flips a round | KL to base | new per 100 events | update, s |"
    )
    yield "| --- |" + " --- |" * 10
    for arm, variant in keys:
        rows = list(figures.get((arm, variant), {}).values())
        if not rows:
            continue
        last = [row["rounds"][-1] for row in rows]
        cells = [
            first(arm, variant),
            str(len(rows)),
            _percent(_finals(figures, arm, variant, "new")),
            _points(gain_gap(figures, arm, variant)),
            _points(old_drop(figures, arm, variant)),
            _percent(_finals(figures, arm, variant, "refusals")),
            _points(_of([end["backward_transfer"] for end in last])),
            _percent(_of([_flips(row) for row in rows])),
            _number(_of([end["kl_to_base"] for end in last])),
            _points(_of([end.get("gain_per_100_events") for end in last])),
            _number(_of([_seconds(row) for row in rows])),
        ]
        yield f"| {' | '.join(cells)} |"


def _turned(figures: Figures) -> Iterator[str]:
    drop = neighbour_drop(figures)
    if drop is None:
        return
    after, stale = (
        interval(list(final(figures, DEFAULT, "overturned", name).values()))
        for name in ("overturned", "overturned_stale")
    )
    ceiling = _finals(figures, CEILING, "overturned", "overturned")
    yield (
        f"Overturned rules: {_percent(after)} of the answers are the new one at the end, "
        f"{_percent(stale)} the old one; neighbours lose {_points(drop)} points."
    )
    if ceiling is not None:
        yield f"Joint training, told all that is right at the end: {_percent(ceiling)}."


def _finals(figures: Figures, arm: str, variant: str, name: str) -> Interval | None:
    return _of(list(final(figures, arm, variant, name).values()))


def _of(values: Sequence[float | None]) -> Interval | None:
    known = [value for value in values if value is not None]
    return interval(known) if known else None


def _flips(row: Row) -> float | None:
    found = [each["flips"] for each in row["rounds"][1:]]
    return sum(found) / len(found) if found else None


def _seconds(row: Row) -> float | None:
    found = [each["update"]["seconds"] for each in row["rounds"] if each.get("update")]
    return sum(found) / len(found) if found else None


def _percent(found: Interval | None) -> str:
    return _shown(found, scale=100, unit=" %")


def _points(found: Interval | None) -> str:
    return _shown(found, scale=100)


def _number(found: Interval | None) -> str:
    return _shown(found, scale=1, digits=2)


def _shown(found: Interval | None, *, scale: float, unit: str = "", digits: int = 1) -> str:
    if found is None:
        return ""
    mean = f"{found.mean * scale:.{digits}f}"
    if math.isinf(found.half_width):
        return mean + unit
    return f"{mean} ± {found.half_width * scale:.{digits}f}{unit}"


def _plane(figures: Figures, path: Path) -> None:
    """Plasticity against stability: every arm with its intervals."""
    figure, axes = plt.subplots(figsize=(9, 5))
    for number, (arm, one_arm) in enumerate(ARMS.items()):
        new, old = (_finals(figures, arm, BASIC, part) for part in ("new", "old"))
        if new is None or old is None:
            continue
        mark = {"fmt": MARKERS[number % len(MARKERS)], "markersize": 7, "fillstyle": "none"}
        if arm == DEFAULT:
            mark = {"fmt": "*", "markersize": 14}
        errors = [one.half_width if math.isfinite(one.half_width) else None for one in (old, new)]
        axes.errorbar(
            old.mean,
            new.mean,
            xerr=errors[0],
            yerr=errors[1],
            capsize=2,
            linewidth=0.8,
            color=f"C{number % 10}",
            label=one_arm.title,
            **mark,
        )
    axes.set_xlabel("old intents, accuracy (stability)")
    axes.set_ylabel("new intents, accuracy (plasticity)")
    # Intervals of few seeds reach beyond what an accuracy can be.
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    _save(figure, path)


def _curves(figures: Figures, path: Path) -> None:
    """Every arm over the rounds; joint training at the end only."""
    figure, grid = plt.subplots(2, 2, figsize=(10, 7), sharex=True)
    for axes, (name, title) in zip(grid.flat, CURVES.items(), strict=True):
        for number, (arm, one_arm) in enumerate(ARMS.items()):
            rows = list(figures.get((arm, BASIC), {}).values())
            points = _course(rows, name)
            if points and arm != FROZEN:
                style = {"linewidth": 2.5} if arm == DEFAULT else {"linewidth": 1}
                mark = "o" if len(points) < 3 else ""
                axes.plot(
                    *zip(*points, strict=True),
                    label=one_arm.title,
                    marker=mark,
                    color=f"C{number % 10}",
                    linestyle=LINES[number // 10],
                    **style,
                )
        axes.set_title(title)
        axes.grid(alpha=0.3)
    for axes in grid[1]:
        axes.set_xlabel("round")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    _save(figure, path)


def _course(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    """Means over seeds by round."""
    values: dict[int, list[float]] = {}
    for row in rows:
        for each in row["rounds"]:
            if each.get(name) is not None:
                values.setdefault(each["round"], []).append(each[name])
    return [(number, sum(found) / len(found)) for number, found in sorted(values.items())]


def _save(figure: object, path: Path) -> None:
    assert isinstance(figure, plt.Figure)
    figure.set_layout_engine("constrained")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
