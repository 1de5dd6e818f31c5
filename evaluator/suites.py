"""Suites in files: YAML over JSONL.

``refunds.yaml``::

    name: refunds
    kind: regression            # capability, regression, safety, privacy or holdout
    items: refunds.jsonl        # beside the YAML file
    checker: {type: exact, options: {}}
    max_new_tokens: 16
    prompt_template: "Ticket: {prompt}"   # optional, for prompts that are plain text

``refunds.jsonl``, one item a line; ``prompt`` is text or a list of messages::

    {"prompt": "i want my money back", "expected": "refund"}
"""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evaluator.checkers import build_checker
from evaluator.harness.suite import is_harness_file, load_harness_suite
from tacit.contracts import (
    Suite,
    SuiteItem,
    sha256_digest,
    short,
)
from tacit.errors import ConfigError, TacitError

_REQUIRED = ("name", "kind", "items")
_FIELDS = (*_REQUIRED, "checker", "max_new_tokens", "prompt_template")
_ITEM_FIELDS = ("item_id", "prompt", "expected", "choices", "cluster", "non_negotiable")


def load_suites(folder: Path) -> list[Suite]:
    """All suites in ``folder``, sorted by file name; none if there is no such folder.

    Raises ConfigError naming file, line and field for the first fault.
    """
    suites: dict[str, Suite] = {}
    files: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        suite = load_suite(path)
        if suite.name in suites:
            raise ConfigError(
                f"{path}: name: a name no other suite has",
                got=f"{suite.name}, as in {files[suite.name]}",
                mend="Rename one of the two.",
            )
        suites[suite.name], files[suite.name] = suite, path
    return list(suites.values())


def load_suite(path: Path) -> Suite:
    """One suite file with its items. Raises ConfigError naming file, line and field."""
    if is_harness_file(path):
        return load_harness_suite(path)
    tree = _read_yaml(path)
    template = tree.pop("prompt_template", None)
    if template is not None and (not isinstance(template, str) or "{prompt}" not in template):
        raise ConfigError(
            f"{path}: prompt_template: text with {{prompt}} in it", got=repr(template)
        )
    items_path = _items_path(path, tree.pop("items"))
    items = _read_items(items_path, template)
    try:
        suite = Suite.model_validate({**tree, "items": [item for _, item in items]})
    except ValidationError as error:
        raise ConfigError(f"{path}: a suite", got=_faults(error)) from error
    _check_expectations(suite, path, items_path, [line for line, _ in items])
    return suite


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: YAML in UTF-8", got=" ".join(str(error).split())) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping with {', '.join(_REQUIRED)}", got=repr(tree))
    for field in _REQUIRED:
        if field not in tree:
            raise ConfigError(f"{path}: {field}", got="no such field", mend=f"Add {field}: …")
    for field in tree:
        if field not in _FIELDS:
            raise ConfigError(f"{path}: one of {', '.join(_FIELDS)}", got=f"the field {field!r}")
    return tree


def _items_path(path: Path, items: object) -> Path:
    folder = path.parent.resolve()
    target = folder / items if isinstance(items, str) else None
    if target is None or not target.resolve().is_relative_to(folder):
        raise ConfigError(f"{path}: items: a JSONL file beside it", got=repr(items))
    if not target.is_file():
        raise ConfigError(
            f"{path}: items: a JSONL file that exists", got=str(items), mend=f"Write {target}."
        )
    return path.parent / str(items)


def _read_items(path: Path, template: str | None) -> list[tuple[int, SuiteItem]]:
    try:
        # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: JSON lines in UTF-8", got=str(error)) from error
    items = [
        (n, _read_item(path, n, line, template)) for n, line in enumerate(lines, 1) if line.strip()
    ]
    if not items:
        raise ConfigError(f"{path}: one item at least", got="none")
    seen: dict[str, int] = {}
    for number, item in items:
        if item.item_id in seen:
            raise ConfigError(
                f"{path}:{number}: item_id: an id no other item has",
                got=f"{item.item_id!r}, as in line {seen[item.item_id]}",
            )
        seen[item.item_id] = number
    return items


def _read_item(path: Path, number: int, line: str, template: str | None) -> SuiteItem:
    where = f"{path}:{number}"
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: a JSON object", got=str(error)) from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: a JSON object", got=repr(raw))
    for field in ("prompt", "expected"):
        if field not in raw:
            raise ConfigError(f"{where}: {field}", got=f"only {', '.join(raw) or 'nothing'}")
    if isinstance(raw["prompt"], str):
        text = raw["prompt"] if template is None else template.replace("{prompt}", raw["prompt"])
        raw["prompt"] = [{"role": "user", "content": text}]
    if isinstance(raw["expected"], dict):  # a JSON Schema
        raw["expected"] = json.dumps(raw["expected"], ensure_ascii=False)
    try:
        return SuiteItem.model_validate({"item_id": f"line-{number}", **raw})
    except ValidationError as error:
        fields = ", ".join(_ITEM_FIELDS)
        raise ConfigError(
            f"{where}: an item", got=_faults(error), mend=f"Its fields are {fields}."
        ) from error


def _faults(error: ValidationError) -> str:
    rows = [
        f"{'.'.join(str(part) for part in row['loc']) or 'suite'}: {row['msg']} "
        f"(got {str(row.get('input'))[:200]!r})"
        for row in error.errors()
    ]
    return "; ".join(rows)


def _check_expectations(suite: Suite, path: Path, items_path: Path, lines: list[int]) -> None:
    try:
        checker = build_checker(suite.checker)
    except ConfigError as error:
        expected = f"{path}: checker: {error.expected}"
        raise ConfigError(expected, got=error.got, mend=error.mend) from error
    for line, item in zip(lines, suite.items, strict=True):
        try:
            checker("", item.expected)
        except TacitError as error:
            raise ConfigError(f"{items_path}:{line}: {error.expected}", got=error.got) from error


def write_suite(folder: Path, suite: Suite) -> Path:
    """Write ``suite`` so that loading it gives the same digest; returns the YAML file.

    The items go to a file named by digest before the YAML file is replaced, so a reader or a crash
    finds the old suite or the new one, never half of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(_item_tree(item), ensure_ascii=False) + "\n" for item in suite.items)
    data = lines.encode()
    items_path = folder / f"{suite.name}-{short(sha256_digest(data))}.jsonl"
    _replace(items_path, data)
    tree = {
        "name": suite.name,
        "kind": suite.kind.value,
        "items": items_path.name,
        "checker": suite.checker.model_dump(mode="json"),
        "max_new_tokens": suite.max_new_tokens,
    }
    path = folder / f"{suite.name}.yaml"
    _replace(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode())
    for old in folder.glob(f"{suite.name}-{'[0-9a-f]' * 12}.jsonl"):
        if old != items_path:
            old.unlink(missing_ok=True)
    return path


def _item_tree(item: SuiteItem) -> dict[str, Any]:
    tree = item.model_dump(mode="json", exclude_defaults=True)
    if len(item.prompt) == 1 and item.prompt[0].role == "user":
        tree["prompt"] = item.prompt[0].content
    return tree


def _replace(path: Path, data: bytes) -> None:
    staging = path.with_name(path.name + ".incoming")
    try:
        staging.write_bytes(data)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
