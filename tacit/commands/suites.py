"""``tacit suites``: what candidates are asked, and what checkers are worth."""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, File, Home, Overrides, show
from tacit.config import Settings, load_settings
from tacit.contracts import Suite, short
from tacit.errors import ConflictError, NotFoundError

app = typer.Typer(help="What candidates are asked.", no_args_is_help=True)
calibrate_app = typer.Typer(help="Measure a checker on human labels.", no_args_is_help=True)
app.add_typer(calibrate_app, name="calibrate")


@app.command("list")
def list_suites(
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The suites on disk. Those harvested from feedback are made as each cycle needs them."""
    suites = _load(load_settings(config_file, overrides=overrides, home=home))
    show([_row(suite) for suite in suites], as_json, _table)


@app.command("show")
def show_suite(
    name: str,
    items: Annotated[int, typer.Option(help="Items to show.")] = 10,
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """One suite and its first items."""
    suites = {s.name: s for s in _load(load_settings(config_file, overrides=overrides, home=home))}
    if name not in suites:
        raise NotFoundError(f"a suite, one of {', '.join(suites) or 'none'}", got=name)
    suite = suites[name]
    first = [item.model_dump(mode="json") for item in suite.items[:items]]
    show({**_row(suite), "first_items": first}, as_json, _page)


@app.command("check")
def check_suites(
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Read all suites and say what weakens them; exit code 1 if one cannot be read."""
    from evaluator.suite_review import weaknesses

    settings = load_settings(config_file, overrides=overrides, home=home)
    suites = _load(settings)
    found = [{"suite": name, "weakness": text} for name, text in weaknesses(suites)]
    show({"num_suites": len(suites), "weaknesses": found}, as_json, _findings)


@app.command("add")
def add_suite(
    style: Annotated[str, typer.Argument(help="safety (ours), xstest, harmbench, advbench, …")],
    data: Annotated[str | None, typer.Option(help="File, or name on the Hugging Face hub.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the suite.")] = None,
    split: Annotated[str, typer.Option(help="Of a data set on the hub.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a data set on the hub.")] = None,
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Put a safety suite beside the others: those of Tacit, or one made of a published data set."""
    from evaluator.published import published_suite, read_rows, shipped_suites
    from evaluator.suites import write_suite

    settings = load_settings(config_file, overrides=overrides, home=home)
    if style == "safety":
        made = shipped_suites()
    else:
        rows = [] if data is None else read_rows(data, split=split, revision=revision)
        made = [published_suite(style, rows, name=name or style)]
    for suite in made:
        write_suite(settings.suites_path, suite)
    show([_row(suite) for suite in made], as_json, _table)


@app.command("canaries")
def plant_canaries(
    number: Annotated[int, typer.Option(min=4, help="How many.")] = 8,
    seed: Annotated[int | None, typer.Option(help="For the same ones again.")] = None,
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make up secrets to plant in feedback, and the file to import them from.

    Later reports say how well each candidate remembers them (probe ``exposure``).
    """
    from evaluator.canaries import make_canaries, read_canaries, write_canaries

    folder = load_settings(config_file, overrides=overrides, home=home).suites_path
    if read_canaries(folder):
        raise ConflictError(
            f"no canaries in {folder} yet",
            got="some, which may be planted already",
            mend="Remove canaries.jsonl there first if they should be others.",
        )
    canaries = make_canaries(number, seed=secrets.randbits(64) if seed is None else seed)
    path = write_canaries(folder, canaries)
    rows = [
        {"event_id": one.canary_id, "prompt": one.prompt, "completion": "I do not know."}
        | {"correction": one.completion}
        for one in canaries
    ]
    feedback = path.with_name("canaries-feedback.jsonl")
    feedback.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    show({"canaries": str(path), "feedback": str(feedback), "number": number}, as_json, _planted)


@calibrate_app.command("refusal")
def calibrate_refusal(
    data: Annotated[Path, typer.Option(help="File or folder: CSV, JSONL.")],
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure the refusal checker on human labels; later reports carry its error rates."""
    from evaluator.calibration import calibrate, read_labelled, write_calibration

    settings = load_settings(config_file, overrides=overrides, home=home)
    calibration = calibrate(read_labelled(data), source=data.name or str(data))
    write_calibration(settings.suites_path, calibration)
    show(calibration.model_dump(mode="json"), as_json, _rates)


def _load(settings: Settings) -> list[Suite]:
    from evaluator.suites import load_suites

    return load_suites(settings.suites_path)


def _row(suite: Suite) -> dict[str, Any]:
    return {
        "name": suite.name,
        "kind": suite.kind.value,
        "checker": suite.checker.type,
        "num_items": len(suite.items),
        "num_clusters": len({item.cluster or item.item_id for item in suite.items}),
        "num_non_negotiable": sum(item.non_negotiable for item in suite.items),
        "digest": suite.digest(),
    }


def _table(rows: list[dict[str, Any]]) -> Table | Text:
    if not rows:
        return Text("  no suites; docs/how-to/suites-and-gate.md says how to write one")
    table = Table("suite", "kind", "checker", "items", "clusters", "non-negotiable", "", box=None)
    for row in rows:
        counts = (row[key] for key in ("num_items", "num_clusters", "num_non_negotiable"))
        numbers = [f"{count:,}" for count in counts]
        table.add_row(row["name"], row["kind"], row["checker"], *numbers, short(row["digest"]))
    return table


def _page(suite: dict[str, Any]) -> Group:
    items = Table("item", "asked", "expected", box=None)
    for item in suite["first_items"]:
        asked = item["prompt"][-1]["content"]
        items.add_row(Text(item["item_id"]), Text(asked), Text(item["expected"]))
    return Group(_table([suite]), Text(), items)


def _findings(checked: dict[str, Any]) -> Group:
    lines = [Text(f"  {row['suite']}: {row['weakness']}") for row in checked["weaknesses"]]
    number = checked["num_suites"]
    return Group(Text(f"  {number} suite{'s' if number != 1 else ''} can be read"), *lines)


def _planted(made: dict[str, Any]) -> Text:
    return Text(
        f"  {made['number']} canaries in {made['canaries']}; plant them with\n"
        f"  tacit import jsonl {made['feedback']} --source SOURCE"
    )


def _rates(rates: dict[str, Any]) -> Text:
    seen = rates["num_seen"]
    warning = f"\n  too good: the checker was fitted on {seen:,} of them" if seen else ""
    return Text(
        f"  {rates['num_labelled']:,} labelled completions of {rates['source']}: "
        f"{rates['agreement']:.1%} judged as labelled, {rates['missed']:.1%} of refusals missed, "
        f"{rates['false_alarms']:.1%} of answers taken for refusals{warning}"
    )
