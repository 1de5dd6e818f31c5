"""A log of what policies drawn at random were worth, one JSON object a line.

In: a file, and where in a row the fields are. Out: LoggedAnswers. Fields: ``policy_version``,
``arm_probability`` (with which it was drawn), ``label`` (true, false or a reward in [0, 1]), and if
there are any ``prompt`` and ``subject_id``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tacit.errors import InvalidInputError
from tacit.imports.paths import read_paths, split
from tacit.imports.rows import messages_of, parse_row
from tacit.values import LoggedAnswer

FIELDS = frozenset({"policy_version", "arm_probability", "label", "prompt", "subject_id"})


def read_bandit_log(path: Path, mapping: Sequence[str]) -> list[LoggedAnswer]:
    """All answers in ``path``. Raises InvalidInputError with the line that cannot be used."""
    return list(_answers(path, read_paths(mapping, FIELDS)))


def _answers(path: Path, paths: Mapping[str, str]) -> Iterator[LoggedAnswer]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_row(line)
                yield from (_answer({**row, **part.found}) for part in split(row, paths))
            except InvalidInputError as error:
                got = f"{error.got} on line {number} of {path.name}"
                raise InvalidInputError(error.expected, got=got, mend=error.mend) from error


def _answer(row: Mapping[str, Any]) -> LoggedAnswer:
    arm, subject, prompt = (row.get(f) for f in ("policy_version", "subject_id", "prompt"))
    if arm is None or arm == "":
        raise InvalidInputError(
            "a policy_version in every row",
            got="none",
            mend="`--map policy_version=PATH` says where it is.",
        )
    messages = [] if prompt is None else messages_of(prompt)
    return LoggedAnswer(
        arm=str(arm),
        probability=_number(row, "arm_probability"),
        reward=_number(row, "label"),
        cluster="" if subject is None else str(subject),
        prompt="\n".join(message["content"] for message in messages),
    )


def _number(row: Mapping[str, Any], field: str) -> float:
    value = row.get(field)
    if isinstance(value, bool | int | float):
        return float(value)
    raise InvalidInputError(
        f"a number as {field} in every row",
        got=repr(value)[:80],
        mend=f"`--map {field}=PATH` says where it is.",
    )
