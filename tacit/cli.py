"""The command line. Client verbs talk HTTP to a running service and need the base install only."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tacit.commands import (
    audit,
    consolidate,
    dead_letters,
    doctor,
    gate,
    importing,
    keys,
    lineage,
    quarantine,
    reproduce,
    rollout,
    service,
    suites,
    value,
    webhooks,
)
from tacit.commands.options import (
    AsJson,
    File,
    Home,
    Key,
    Overrides,
    Reason,
    Url,
    console,
    show,
)
from tacit.config import load_settings, public_dump
from tacit.errors import TacitError
from tacit.remote import Remote
from tacit.render import candidate_page, candidates_table, releases_table, status_page

app = typer.Typer(
    name="tacit",
    help="Online RL from feedback: gated, approved, auditable checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config = typer.Typer(help="Look at settings.", no_args_is_help=True)
app.add_typer(audit.app, name="audit")
app.add_typer(config, name="config")
app.add_typer(gate.app, name="gate")
app.add_typer(gate.tokens, name="tokens")
app.add_typer(importing.app, name="import")
app.add_typer(keys.app, name="keys")
app.add_typer(dead_letters.app, name="dead-letter")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(suites.app, name="suites")
app.add_typer(webhooks.app, name="webhooks")
app.command("up")(service.up)
app.command("run")(service.run)
app.command("consolidate")(consolidate.consolidate)
app.command("doctor")(doctor.doctor)
app.command("lineage")(lineage.lineage)
app.command("reproduce")(reproduce.reproduce)
app.command("rollout")(rollout.rollout)
app.command("value")(value.value)


def main() -> None:
    """Entry point: errors raised on purpose become one line on standard error and exit code 1."""
    try:
        app()
    except TacitError as error:
        Console(stderr=True).print(f"[red]tacit:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="CLINC150's data_full.json; by default generated data.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Keep the demo's files here.")] = None,
    seed: int = 0,
) -> None:
    """Tell the whole story here: feedback to approved release, and an attack repelled."""
    from tacit.demo.story import tell

    raise typer.Exit(0 if tell(data=data, home=home, seed=seed, console=console) else 1)


@app.command()
def send(
    interaction: Annotated[str, typer.Option(help="Id of the answer the feedback is about.")],
    subject: Annotated[str, typer.Option(help="Pseudonymous id of the end user.")],
    correct: Annotated[str | None, typer.Option(help="The right completion.")] = None,
    outcome: Annotated[str | None, typer.Option(help="true, false or -1 to 1.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the outcome.")] = "resolved",
    rate: Annotated[float | None, typer.Option(help="Rating.")] = None,
    scale: Annotated[str, typer.Option(help="low:high of the rating.")] = "0:1",
    critique: Annotated[str | None, typer.Option(help="What was wrong, in words.")] = None,
    source: Annotated[str, typer.Option(help="The product that sends.")] = "product",
    policy: Annotated[str, typer.Option(help="Policy line.")] = "default",
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Send feedback on one answer; returns once it is durable."""
    from tacit.send import send_feedback

    event_id = send_feedback(
        Remote.connect(url=url, key=key, home=home, key_name="product"),
        interaction=interaction,
        subject=subject,
        correct=correct,
        outcome=outcome,
        metric=metric,
        rate=rate,
        scale=scale,
        critique=critique,
        source=source,
        policy=policy,
    )
    console.print(f"acknowledged {event_id}")


@app.command()
def status(url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False) -> None:
    """What the loop does, what serves, how much feedback there is."""
    show(Remote.connect(url=url, key=key, home=home).get("/v1/status"), as_json, status_page)


@app.command()
def candidates(
    url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """All candidates, newest first."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get("/v1/candidates"), as_json, candidates_table)


@app.command("show")
def show_candidate(
    candidate: str, url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False
) -> None:
    """One candidate: its verdict and the whole criteria table."""
    remote = Remote.connect(url=url, key=key, home=home)
    show(remote.get(f"/v1/candidates/{candidate}"), as_json, candidate_page)


@app.command()
def approve(
    candidate: str, reason: Reason, url: Url = None, key: Key = None, home: Home = None
) -> None:
    """Let a candidate be served."""
    _decide(Remote.connect(url=url, key=key, home=home), candidate, "approve", reason)


@app.command()
def reject(
    candidate: str, reason: Reason, url: Url = None, key: Key = None, home: Home = None
) -> None:
    """Turn a candidate away."""
    _decide(Remote.connect(url=url, key=key, home=home), candidate, "reject", reason)


@app.command()
def releases(url: Url = None, key: Key = None, home: Home = None, as_json: AsJson = False) -> None:
    """What serves and what served before."""
    show(Remote.connect(url=url, key=key, home=home).get("/v1/releases"), as_json, releases_table)


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="Release id; by default the one before.")] = None,
    keep_feedback: Annotated[
        bool, typer.Option("--keep-feedback", help="Learn from it again rather than set it aside.")
    ] = False,
    url: Url = None,
    key: Key = None,
    home: Home = None,
) -> None:
    """Serve an older release again, and set aside what the newer one was trained on."""
    remote = Remote.connect(url=url, key=key, home=home)
    body = {"to": to, "reason": reason, "keep_feedback": keep_feedback}
    release = remote.post("/v1/releases/rollback", body)
    console.print(f"{release['release_id']} serves {release['weights'][7:19]}")


@config.command("show")
def configshow(config_file: File = None, home: Home = None, overrides: Overrides = None) -> None:
    """Every setting with the value it has after file, environment and overrides."""
    settings = load_settings(config_file, overrides=overrides, home=home)
    console.print_json(json.dumps(public_dump(settings)))


def _decide(remote: Remote, candidate: str, verb: str, reason: str) -> None:
    decision = remote.post(f"/v1/candidates/{candidate}/{verb}", {"reason": reason})
    made = decision["decision"]
    if made is None:
        console.print(f"approved; {candidate} still waits. {decision['missing']}.")
    else:
        console.print(f"{candidate} {made['outcome']} by {made['decided_by']}")
