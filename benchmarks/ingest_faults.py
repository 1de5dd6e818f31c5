"""What ingestion loses when everything around it dies: nothing, and nothing counts twice.

A product sends events through the SDK, spool on, while collector, screening consumer and, on Kafka,
the broker are killed with SIGKILL at random moments. In the end every acknowledged event must stand
in the events table exactly once. The moments come from a seed. Prints one JSON object last.
"""

import argparse
import json
import random
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import func, select

from benchmarks.results import report
from collector.client import TacitClient
from collector.tables import DeadLetterRow, EventRow
from tacit.config import KafkaSettings, Settings, load_settings
from tacit.contracts import Correction, FeedbackEvent, InlineInteraction, Message, utc_now
from tacit.database import Database
from tacit.keys import KeyStore
from tacit.principal import Scope
from tacit.start import prepare
from tests.collector.brokers import Broker
from tests.conftest import free_port

CHUNK = 100
LONGEST_WAIT_S = 600.0


class Roles:
    """Processes of the service that are killed and started again at once."""

    def __init__(self, settings: Settings, names: tuple[str, ...]) -> None:
        self._settings = settings
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in names:
            self._start(name)

    def kill(self, name: str) -> None:
        """SIGKILL ``name`` and start another."""
        self._end(name, signal.SIGKILL)
        self._start(name)

    def stop(self) -> None:
        """End all."""
        for name in list(self._processes):
            self._end(name, signal.SIGKILL)

    def _start(self, name: str) -> None:
        with (self._settings.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tacit.service", name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        self._processes[name] = process

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._processes.pop(name)
        process.send_signal(how)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


class Witness(httpx.BaseTransport):
    """Passes requests on and writes down which events the service said are queued."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport(retries=0)
        self.acknowledged: Counter[str] = Counter()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        response = self._inner.handle_request(request)
        response.read()
        if response.status_code in (202, 207):
            answer = response.json()
            for item in answer.get("results", [answer]):
                if item["status"] == "queued":
                    self.acknowledged[item["event_id"]] += 1
        return response

    def close(self) -> None:
        """See httpx."""
        self._inner.close()


@dataclass
class Chaos:
    """Kills something now and then until told to stop; the moments come from ``seed``."""

    victims: dict[str, Callable[[], None]]
    seed: int
    num_kills: int
    max_pause_s: float = 5.0
    killed: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Kill ``num_kills`` times."""
        chance = random.Random(self.seed)
        for _ in range(self.num_kills):
            time.sleep(chance.uniform(0.5, self.max_pause_s))
            victim = chance.choice(sorted(self.victims))
            self.victims[victim]()
            self.killed[victim] += 1
            print(f"killed {victim}: {dict(self.killed)}", file=sys.stderr)
        self.done.set()


def events(num_events: int) -> Iterator[FeedbackEvent]:
    """Corrections that screening lets through: each of another person and about another thing."""
    for number in range(num_events):
        # Letters alone: screening folds digits, and would take such prompts for one.
        name = "".join(string.ascii_lowercase[int(digit)] for digit in f"{number:06d}")
        yield FeedbackEvent(
            event_id=f"e-{number}",
            policy="default",
            source="helpdesk",
            subject_id=f"u-{number}",
            occurred_at=utc_now(),
            feedback=Correction(completion=f"answer {name}"),
            interaction=InlineInteraction(
                prompt=(Message(role="user", content=f"what is {name}"),), completion="billing"
            ),
        )


def send(settings: Settings, witness: Witness, *, num_events: int, chaos: Chaos) -> int:
    """Send all events while ``chaos`` lasts; how many were taken by the SDK, all acknowledged."""
    database = Database(settings.resolved_database_url)
    key = KeyStore(database).create("faults", scopes={Scope.SEND}, source="helpdesk")
    database.dispose()
    num_sent = 0
    client = TacitClient(
        f"http://{settings.collector.host}:{settings.collector.port}",
        api_key=key,
        source="helpdesk",
        spool=settings.home / "spool",
        queue_timeout_s=60.0,
        transport=witness,
    )
    made = events(num_events)
    with client:
        while chunk := [event for _, event in zip(range(CHUNK), made, strict=False)]:
            num_sent += len(client.send_many(chunk))
            # Spread over all the kills, so that each has something to break.
            while not chaos.done.is_set() and _ahead(num_sent, num_events, chaos):
                time.sleep(0.02)
        client.flush(timeout_s=LONGEST_WAIT_S)
    return num_sent


def wait_until_screened(settings: Settings, num_events: int) -> None:
    """Return once as many events have a row, or no new one came for a minute."""
    database = Database(settings.resolved_database_url)
    num_seen, changed_at = -1, time.monotonic()
    while num_seen < num_events and time.monotonic() - changed_at < 60:
        with database.reader() as session:
            found = session.scalar(select(func.count()).select_from(EventRow)) or 0
        if found != num_seen:
            num_seen, changed_at = found, time.monotonic()
        time.sleep(0.5)
    database.dispose()


def tally(settings: Settings, acknowledged: Counter[str]) -> dict[str, int]:
    """What became of what was acknowledged."""
    database = Database(settings.resolved_database_url)
    with database.reader() as session:
        rows = session.execute(select(EventRow.event_id, EventRow.status, EventRow.payload)).all()
        num_dead = session.scalar(select(func.count()).select_from(DeadLetterRow)) or 0
    database.dispose()
    said = Counter(json.loads(row.payload)["feedback"]["completion"] for row in rows)
    present = {row.event_id for row in rows}
    return {
        "acknowledged": len(acknowledged),
        "accepted": sum(row.status == "accepted" for row in rows),
        "dead_letters": num_dead,
        "lost": len(acknowledged.keys() - present),
        "doubled": sum(count - 1 for count in said.values()),
    }


def rehearse(
    folder: Path,
    *,
    stream: str,
    num_events: int,
    num_kills: int,
    seed: int,
    max_pause_s: float = 5.0,
) -> dict[str, int]:
    """One stream: start everything, send, kill, wait, count.

    Between two kills are at most ``max_pause_s`` seconds.
    """
    with ExitStack() as stack:
        collector: dict[str, object] = {
            "port": free_port(),
            "stream": stream,
            "screening": {"holdout_share": 0.0},
        }
        victims: dict[str, Callable[[], None]] = {}
        if stream == "kafka":
            broker = Broker(folder / "broker").start()
            stack.callback(broker.remove)
            collector["kafka"] = KafkaSettings(bootstrap_servers=broker.address).model_dump()
            victims["broker"] = _restarter(broker)
        settings = load_settings(home=folder / "home", collector=collector)
        prepare(settings)
        roles = Roles(settings, ("control", "screening"))
        stack.callback(roles.stop)
        victims |= {name: _killer(roles, name) for name in ("control", "screening")}
        chaos = Chaos(victims, seed, num_kills, max_pause_s)
        killing = threading.Thread(target=chaos.run, daemon=True)
        killing.start()
        witness = Witness()
        num_sent = send(settings, witness, num_events=num_events, chaos=chaos)
        killing.join()
        wait_until_screened(settings, num_events)
        kills = {f"kills_{name}": count for name, count in sorted(chaos.killed.items())}
        return {"sent": num_sent, **tally(settings, witness.acknowledged), **kills}


def main() -> None:
    """Rehearse on each stream; exit code 1 if anything was lost or doubled."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--stream", choices=["embedded", "kafka", "both"], default="both")
    options.add_argument("--num-events", type=int, default=100_000)
    options.add_argument("--num-kills", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    streams = ["embedded", "kafka"] if chosen.stream == "both" else [chosen.stream]
    figures: dict[str, float | bool | str] = {"seed": chosen.seed}
    for stream in streams:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            seen = rehearse(
                Path(folder),
                stream=stream,
                num_events=chosen.num_events,
                num_kills=chosen.num_kills,
                seed=chosen.seed,
            )
        print(f"{stream}: {seen}", file=sys.stderr)
        figures |= {f"{stream}_{name}": count for name, count in seen.items()}
    report("ingest_faults", figures)
    bad = [v for k, v in figures.items() if k.endswith(("_lost", "_doubled")) and v]
    sys.exit(1 if bad else 0)


def _ahead(num_sent: int, num_events: int, chaos: Chaos) -> bool:
    return num_sent > num_events * (chaos.killed.total() + 1) / (chaos.num_kills + 1)


def _restarter(broker: Broker) -> Callable[[], None]:
    def restart() -> None:
        broker.kill()
        broker.start()

    return restart


def _killer(roles: Roles, name: str) -> Callable[[], None]:
    return lambda: roles.kill(name)


if __name__ == "__main__":
    main()
