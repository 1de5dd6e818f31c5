"""``tacit reproduce``: rebuild a candidate from what is recorded, and compare digests."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tacit.commands.options import AsJson, File, Home, Overrides, console, show
from tacit.config import Settings, load_settings
from tacit.contracts import PolicyCandidate, ReplayExample, ScreenedEvent, SealedBatch
from tacit.errors import NotFoundError

_DIGESTS = ("parent", "batch", "trained", "weights")


def reproduce(
    candidate: Annotated[str, typer.Argument(help="Id of the candidate, c-….")],
    config_file: File = None,
    home: Home = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a candidate on this machine's CPUs; exit code 1 if other weights come out.

    Reads the database and the checkpoint store of a running or a stopped service and changes
    neither.
    """
    settings = load_settings(config_file, overrides=overrides, home=home)
    result = _rebuild(settings, candidate, quiet=as_json)
    show(result, as_json, _page)
    raise typer.Exit(0 if result["same"] else 1)


def _rebuild(settings: Settings, candidate_id: str, *, quiet: bool) -> dict[str, Any]:
    """The Reproduction as a tree."""
    recorded = _recorded(settings, candidate_id)
    # Only now: importing what trains takes seconds, and most mistakes are found without it.
    from tacit.checkpoints import CheckpointStore
    from tacit.progress import Bars, LoopBars
    from trainer.reproduce import reproduce as rebuild

    store = CheckpointStore(settings.checkpoints_path)
    with Bars(console) as bars:
        watch = (lambda _: None) if quiet else LoopBars(bars).on_step
        found = rebuild(*recorded, store=store, on_step=watch)
    return {
        "candidate_id": found.candidate_id,
        "weights": found.weights,
        "same": found.same,
        "facts": [{**fact._asdict(), "same": fact.same} for fact in found.facts],
    }


def _recorded(
    settings: Settings, candidate_id: str
) -> tuple[PolicyCandidate, SealedBatch, list[ScreenedEvent], list[ReplayExample]]:
    from collector.store import EventStore
    from tacit.database import Database
    from trainer.seal import verify_batch
    from trainer.store import BatchStore, CandidateStore

    _check_there(settings)
    database = Database(settings.resolved_database_url)
    try:
        candidate = CandidateStore(database).get(candidate_id)
        batch, replay = BatchStore(database).get(candidate.batch_id)
        events = EventStore(database).events_of(batch.batch_id)
    finally:
        database.dispose()
    verify_batch(batch, events, replay)
    return candidate, batch, events, replay


def _check_there(settings: Settings) -> None:
    # Opening an SQLite database that is not there would make an empty one.
    if settings.database_url is None and not (settings.home / "tacit.db").exists():
        raise NotFoundError(
            "the home of a service",
            got=f"no tacit.db in {settings.home}",
            mend="Name it with --home, or its database with --set database_url=….",
        )


def _page(result: dict[str, Any]) -> Group:
    facts = result["facts"]
    if result["same"]:
        told = [fact for fact in facts if fact["name"] in _DIGESTS or not fact["same"]]
        head = Text(f"  {result['candidate_id']} is reproduced, bit for bit", style="green")
    else:
        told = [fact for fact in facts if not fact["same"]]
        head = Text(f"  {result['candidate_id']} is NOT reproduced; what differs:", style="red")
    return Group(head, _table(told), *_hints(facts, same=result["same"]))


def _table(facts: Iterable[dict[str, Any]]) -> Table:
    table = Table("", "fact", "recorded", "here", box=None)
    for fact in facts:
        mark = Text("same", "green") if fact["same"] else Text("differs", "red")
        # Values are escaped by Text: a library may put brackets into its version.
        table.add_row(mark, fact["name"], Text(fact["recorded"]), Text(fact["here"]))
    return table


def _hints(facts: Iterable[dict[str, Any]], *, same: bool) -> list[Text]:
    if same:
        return []
    causes = [fact for fact in facts if not fact["same"] and fact["name"] not in _DIGESTS]
    if causes:
        return [Text("  Rebuild with the recorded versions, on the recorded kind of processor.")]
    return [Text("  Everything it hangs on is the same: the stored weights were not made by it.")]
