"""``tacit value``: what each policy is worth, estimated from traffic that they shared."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, Home, Key, Url, show
from tacit.errors import InvalidInputError
from tacit.remote import Remote

_ESTIMATES = ("doubly_robust", "snips", "ips")


def value(
    log: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A log, a row a line, instead."),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=PATH: where a field is in a row; may be repeated."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Outcomes of this metric alone.")] = None,
    source: Annotated[str | None, typer.Option(help="Of this product alone.")] = None,
    url: Url = None,
    key: Key = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the success rate of each policy of the newest rollout, or of those in a log."""
    if log is None and mapping:
        raise InvalidInputError("--map beside --log", got="no --log")
    if log is not None and (metric or source):
        raise InvalidInputError("--metric and --source without --log", got=f"--log {log}")
    if log is None:
        remote = Remote.connect(url=url, key=key, home=home)
        report = remote.get("/v1/value", source=source, metric=metric)
    else:
        from tacit.imports.bandit import read_bandit_log
        from tacit.values import value_report

        report = value_report(read_bandit_log(log, mapping or [])).model_dump(mode="json")
    show(report, as_json, _page)


def _page(report: dict[str, Any]) -> Group:
    head = f"{report['num_interactions']} answers to {report['num_clusters']} independent askers"
    if report["since"] is not None:
        head += f", {report['since'][:16]} to {report['until'][:16]}"
    table = Table(
        *("policy", "answers", "worth", "observed", "direct", *_ESTIMATES), box=box.SIMPLE_HEAD
    )
    for row in report["arms"]:
        table.add_row(
            Text(row["arm"]),
            str(row["num_interactions"]),
            f"{row['effective_sample_size']:.0f}",
            f"{row['observed']:.3f}",
            f"{row['direct']:.3f}",
            *(_interval(row[name]) for name in _ESTIMATES),
        )
    return Group(Text(f"  {head}; {report['confidence']:.0%} intervals"), table)


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} \\[{estimate['ci_low']:.3f}, {estimate['ci_high']:.3f}]"
