"""Safety suites from published data sets, and those that come with Tacit.

In: rows of a data set as it is published, from a file or by its name on the Hugging Face hub. Out:
an ordinary suite with checker ``refusal``, to be kept with :func:`evaluator.suites.write_suite`, so
that nothing is fetched when a cycle runs and a changed data set shows as another digest.

| format | rows | source |
| --- | --- | --- |
| ``xstest`` | ``prompt``, and ``label`` or ``type`` | Röttger et al. 2024, 2308.01263 |
| ``harmbench`` | ``Behavior``, ``ContextString`` | Mazeika et al. 2024, 2402.04249 |
| ``advbench`` | ``goal`` | Zou et al. 2023, 2307.15043 |
| ``do-not-answer`` | ``question`` | Wang et al. 2023, 2308.13387 |
| ``or-bench`` | ``prompt``: harmless, though it looks otherwise | Cui et al. 2024, 2405.20947 |
| ``refusals`` | ``prompt`` and ``expected`` (refuse or comply) | your own |
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluator.suites import load_suites
from tacit.contracts import CheckerSpec, Message, Suite, SuiteItem, SuiteKind
from tacit.errors import ConfigError, UnavailableError

SHIPPED = Path(__file__).with_name("safety")
MAX_NEW_TOKENS = 128

Row = Mapping[str, Any]


def shipped_suites() -> list[Suite]:
    """The safety suites that come with Tacit."""
    return load_suites(SHIPPED)


def published_suite(style: str, rows: Iterable[Row], *, name: str) -> Suite:
    """The suite of ``rows``, which are published in ``style``, one of :data:`STYLES`.

    Raises ConfigError for another style, and naming the row that does not have its columns.
    """
    if style not in STYLES:
        raise ConfigError(f"a format, one of {', '.join(STYLES)}", got=style)
    items = []
    for number, row in enumerate(rows, 1):
        try:
            prompt, expected = STYLES[style](row)
            if not prompt.strip() or expected not in {"refuse", "comply"}:
                raise ValueError(f"{prompt[:80]!r}, {expected!r}")
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            columns = ", ".join(map(str, row)) if isinstance(row, Mapping) else "no mapping"
            got = f"{type(error).__name__}: {error} in columns {columns}"
            raise ConfigError(f"row {number} in the format of {style}", got=got) from error
        asked = (Message(role="user", content=prompt.strip()),)
        items.append(SuiteItem(item_id=f"row-{number}", prompt=asked, expected=expected))
    if not items:
        raise ConfigError(f"rows in the format of {style}", got="none")
    return Suite(
        name=name,
        kind=SuiteKind.SAFETY,
        checker=CheckerSpec(type="refusal"),
        items=tuple(items),
        max_new_tokens=MAX_NEW_TOKENS,
    )


def read_rows(source: str, *, split: str = "train", revision: str | None = None) -> list[Row]:
    """Rows of a CSV, JSONL or JSON file, or of a data set on the hub if there is no such file.

    Raises ConfigError for a file that cannot be read, UnavailableError for a hub that cannot.
    """
    path = Path(source)
    if not path.exists():
        return _from_hub(source, split, revision)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines(keepends=True)))
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"CSV, JSONL or JSON in {path}", got=str(error)) from error
    if not isinstance(rows, list):
        raise ConfigError(f"a list of rows in {path}", got=type(rows).__name__)
    return rows


def _from_hub(name: str, split: str, revision: str | None) -> list[Row]:
    import datasets

    try:
        return list(datasets.load_dataset(name, split=split, revision=revision))
    except Exception as error:  # the library raises what its many parts do
        raise UnavailableError(
            f"a file, or split {split} of a data set on the Hugging Face hub",
            got=f"{name}: {type(error).__name__}: {error}",
        ) from error


def _xstest(row: Row) -> tuple[str, str]:
    unsafe = row["label"] == "unsafe" if row.get("label") else row["type"].startswith("contrast_")
    return row["prompt"], "refuse" if unsafe else "comply"


def _harmbench(row: Row) -> tuple[str, str]:
    context = (row.get("ContextString") or "").strip()
    return f"{context}\n\n{row['Behavior']}" if context else row["Behavior"], "refuse"


STYLES: Mapping[str, Callable[[Row], tuple[str, str]]] = {
    "xstest": _xstest,
    "harmbench": _harmbench,
    "advbench": lambda row: (row["goal"], "refuse"),
    "do-not-answer": lambda row: (row["question"], "refuse"),
    "or-bench": lambda row: (row["prompt"], "comply"),
    "refusals": lambda row: (row["prompt"], row["expected"]),
}
