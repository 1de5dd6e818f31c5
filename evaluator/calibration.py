"""Calibration: how often the refusal checker is wrong, measured on human labels.

In: CSV or JSONL files with a completion and a label a row, such as the completions of XSTest. Out:
error rates, kept in a file, which stand in every later report so that a reader knows what a score
of a refusal suite is worth.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from evaluator.refusal import WEIGHTS, fingerprint, is_refusal, shipped
from tacit.contracts import Calibration, Digest, canonical_json, sha256_digest
from tacit.errors import ConfigError, IntegrityError

FILE_NAME = "calibration-refusal.json"
_REFUSED = {
    "refuse": True,
    "refusal": True,
    "2_full_refusal": True,
    "3_partial_refusal": True,
    "comply": False,
    "compliance": False,
    "1_full_compliance": False,
}
_LABELS = ("final_label", "label")


class Labelled(NamedTuple):
    """A completion and whether people call it a refusal."""

    completion: str
    refused: bool


def read_labelled(path: Path) -> list[Labelled]:
    """Labelled completions of a file, or of all ``.csv`` and ``.jsonl`` files of a folder.

    A row has ``completion`` and ``label`` (or XSTest's ``final_label``); rows without a completion
    column, as in a file of prompts, are passed over. Raises ConfigError naming file and row.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.csv"), *path.glob("*.jsonl")])
    labelled = [one for file in files for one in _read(file)]
    if not any(one.refused for one in labelled) or all(one.refused for one in labelled):
        raise ConfigError(
            f"labelled refusals and labelled answers in {path}",
            got=f"{len(labelled)} labelled completions of one kind or none",
            mend="Give a CSV or JSONL file with the columns completion and label (refuse, comply).",
        )
    return labelled


def _read(path: Path) -> Iterator[Labelled]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: text in UTF-8", got=str(error)) from error
    rows = _jsonl(path, text) if path.suffix == ".jsonl" else csv.DictReader(text.splitlines(True))
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "completion" not in row:
            continue
        label = next((row[name] for name in _LABELS if row.get(name)), None)
        if not isinstance(row["completion"], str) or label not in _REFUSED:
            wanted = f"{path}, row {number}: a completion and one of {', '.join(_REFUSED)}"
            raise ConfigError(wanted, got=repr(label))
        yield Labelled(row["completion"], _REFUSED[label])


def _jsonl(path: Path, text: str) -> Iterator[dict[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: a JSON object", got=str(error)) from error


def calibrate(labelled: Sequence[Labelled], *, source: str) -> Calibration:
    """Error rates of the refusal checker as it is now; needs completions of both kinds."""
    judged = [is_refusal(one.completion) for one in labelled]
    pairs = [(one.refused, said) for one, said in zip(labelled, judged, strict=True)]
    num_refused = sum(refused for refused, _ in pairs)
    missed = sum(refused and not said for refused, said in pairs)
    false_alarms = sum(said and not refused for refused, said in pairs)
    return Calibration(
        checker="refusal",
        checker_digest=checker_digest(),
        source=source,
        data_digest=sha256_digest(canonical_json([list(one) for one in labelled])),
        num_labelled=len(pairs),
        num_seen=sum(fingerprint(one.completion) in shipped().seen for one in labelled),
        agreement=1 - (missed + false_alarms) / len(pairs),
        missed=missed / num_refused,
        false_alarms=false_alarms / (len(pairs) - num_refused),
    )


def checker_digest() -> Digest:
    """Of the weights the refusal checker works with."""
    return sha256_digest(WEIGHTS.read_bytes())


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Keep ``calibration`` in ``folder`` in place of an older one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    staging = path.with_name(path.name + ".incoming")
    staging.write_bytes(calibration.canonical_json())
    staging.replace(path)
    return path


def read_calibrations(folder: Path) -> list[Calibration]:
    """What was kept in ``folder`` and was measured on the checker as it is now; none at first.

    Raises IntegrityError for a file that cannot be read.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        calibration = Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"a calibration in {path}", got=str(error)) from error
    return [calibration] if calibration.checker_digest == checker_digest() else []
