"""Where fields stand in a row: ``--map FIELD=PATH``, for rows of one answer and of several.

``prompt=question`` names a key, ``completion=answers.0.text`` goes deeper. A ``*`` stands for each
key, or each place in a list: ``completion=*.solution`` makes as many parts of a row as have a
``solution``. A path that ends with the ``*`` is the key itself: ``policy_version=*``.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from tacit.errors import InvalidInputError

_EACH = "*"


class RowPart(NamedTuple):
    """One answer in a row."""

    name: str | None
    """Its key in the row; None where the row is one answer."""
    found: dict[str, Any]
    """What the paths lead to, by field; None where there is nothing."""


def read_paths(options: Iterable[str], fields: Collection[str]) -> dict[str, str]:
    """``FIELD=PATH`` options, by field. Raises InvalidInputError."""
    paths: dict[str, str] = {}
    for option in options:
        field, _, path = option.partition("=")
        if field not in fields or not path:
            raise InvalidInputError(
                f"--map FIELD=PATH with a field among {', '.join(sorted(fields))}", got=option
            )
        paths[field] = path
    _check_stars(paths)
    return paths


def find(row: Any, path: str) -> Any:
    """What stands at ``a.0.b``; None if there is nothing. A key with dots wins over a path."""
    if isinstance(row, dict) and path in row:
        return row[path]
    here = row
    for step in path.split("."):
        if isinstance(here, list) and step.isascii() and step.isdecimal():
            here = here[int(step)] if int(step) < len(here) else None
        else:
            here = here.get(step) if isinstance(here, dict) else None
    return here


def split(row: Mapping[str, Any], paths: Mapping[str, str]) -> list[RowPart]:
    """The answers in ``row``: one for each key in which a path beyond its star finds something.

    Without stars, and where they find nothing, the row is one answer.
    """
    plain = {field: find(row, path) for field, path in paths.items() if not _is_starred(path)}
    starred = {field: _halves(path) for field, path in paths.items() if _is_starred(path)}
    parts = []
    for name, value in _members(row, starred):
        found = {field: find(value, rest) for field, (_, rest) in starred.items() if rest}
        if any(one is not None for one in found.values()):
            names = {field: name for field, (_, rest) in starred.items() if not rest}
            parts.append(RowPart(name, {**plain, **found, **names}))
    return parts or [RowPart(None, plain)]


def _members(
    row: Mapping[str, Any], starred: Mapping[str, tuple[str, str]]
) -> list[tuple[str, Any]]:
    if not starred:
        return []
    prefix = next(iter(starred.values()))[0]
    container = find(row, prefix) if prefix else row
    if isinstance(container, list):
        return [(str(place), value) for place, value in enumerate(container)]
    return list(container.items()) if isinstance(container, dict) else []


def _is_starred(path: str) -> bool:
    return _EACH in path.split(".")


def _halves(path: str) -> tuple[str, str]:
    """What stands before and behind the star."""
    steps = path.split(".")
    place = steps.index(_EACH)
    return ".".join(steps[:place]), ".".join(steps[place + 1 :])


def _check_stars(paths: Mapping[str, str]) -> None:
    starred = [path for path in paths.values() if _is_starred(path)]
    if not starred:
        return
    halves = [_halves(path) for path in starred]
    one_place = len({prefix for prefix, _ in halves}) == 1
    if (
        not one_place
        or not any(rest for _, rest in halves)
        or any(_is_starred(rest) for _, rest in halves)
    ):
        raise InvalidInputError(
            "one * a path, in the same place in all, with a field behind it in one at least",
            got=", ".join(starred),
        )
