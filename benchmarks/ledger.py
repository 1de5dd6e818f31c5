"""The ledger from a thousand to a million entries: appending, proving, checking a proof.

    python -m benchmarks.ledger [--largest 1000000]

Appends are the real ones, each in a transaction of its own on SQLite. Those to the long ledger and
to one of a thousand entries take turns, so that a busy machine slows both. Between the sizes
measured, entries are made and signed as always but written many at a time.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from benchmarks.results import report
from gatekeeper.ledger import Ledger
from gatekeeper.proofs import check_consistency, check_inclusion
from gatekeeper.tables import LedgerRow
from tacit.contracts import canonical_json, utc_now
from tacit.database import Database
from tacit.merkle import Frontier, leaf_hash
from tacit.signing import Signer

SHORTEST = 1_000
NUM_APPENDS = 300
NUM_PROOFS = 100
ROWS_AT_ONCE = 5_000
COLUMNS = [column.key for column in LedgerRow.__mapper__.columns]


class Bench:
    """One ledger on SQLite in ``folder``."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.database = Database(f"sqlite:///{folder}/ledger.db")
        self.database.migrate()
        self.signer = signer
        self.ledger = Ledger(self.database, signer)
        self.frontier = Frontier()

    def fill(self, size: int) -> None:
        """Make entries until there are ``size``."""
        while (before := self.ledger.size()) < size:
            rows = [self._row(i) for i in range(before, min(size, before + ROWS_AT_ONCE))]
            with self.database.session() as session:
                session.execute(insert(LedgerRow), rows)

    def _row(self, sequence: int) -> dict[str, object]:
        moment, subject = utc_now(), f"d-{sequence:012x}"
        entry = canonical_json(
            {
                "sequence": sequence,
                "kind": "decision",
                "subject": subject,
                "body": body(sequence),
                "recorded_at": moment.isoformat(),
            }
        )
        self.frontier.append(leaf_hash(entry))
        row = self.ledger.row(sequence, "decision", subject, entry, self.frontier, moment)
        return {name: getattr(row, name) for name in COLUMNS}

    def append(self) -> float:
        """Seconds of one append with its commit."""
        sequence = self.frontier.size
        start = time.perf_counter()
        with self.database.session() as session:
            self.ledger.append(session, "decision", f"d-{sequence:012x}", body(sequence))
        took_s = time.perf_counter() - start
        self.frontier.append(leaf_hash(self.ledger.entries(1)[0].entry.encode()))
        return took_s


def body(sequence: int) -> dict[str, object]:
    """As much as a decision carries."""
    return {"number": sequence, "reason": "x" * 200, "digests": ["sha256:" + "0" * 64] * 5}


def measure_proofs(bench: Bench, rng: random.Random) -> dict[str, float]:
    """Sizes in bytes, times in milliseconds; medians over random entries."""
    ledger, size = bench.ledger, bench.ledger.size()
    chosen = [rng.randrange(size) for _ in range(NUM_PROOFS)]
    proofs = [timed(lambda i=i: ledger.prove(i)) for i in chosen]
    checks = [timed(lambda p=p: check_inclusion(p, bench.signer)) for p, _ in proofs]
    growths = [timed(lambda i=i: ledger.prove_growth(i + 1)) for i in chosen[:20]]
    for growth, _ in growths:
        check_consistency(growth, bench.signer)
    sizes = [len(json.dumps(proof.path).encode()) for proof, _ in proofs]
    return {
        "path_hashes": max(len(proof.path) for proof, _ in proofs),
        "path_bytes": statistics.median(sizes),
        "proof_bytes": statistics.median(len(p.model_dump_json().encode()) for p, _ in proofs),
        "prove_ms": 1e3 * statistics.median(took_s for _, took_s in proofs),
        "check_ms": 1e3 * statistics.median(took_s for _, took_s in checks),
        "prove_growth_ms": 1e3 * statistics.median(took_s for _, took_s in growths),
    }


def timed(call: Callable[[], object]) -> tuple:
    """What ``call`` returned, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def main() -> None:
    """Measure at each power of ten, and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=1_000_000)
    largest = parser.parse_args().largest
    rng = random.Random(0)
    figures: dict[str, float | bool | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        signer = Signer.load_or_create(Path(folder) / "keys")
        short = Bench(Path(folder) / "short", signer)
        long = Bench(Path(folder) / "long", signer)
        short.fill(SHORTEST)
        size = SHORTEST
        while size <= largest:
            long.fill(size)
            pairs = [(short.append(), long.append()) for _ in range(NUM_APPENDS)]
            base_s, here_s = (statistics.median(column) for column in zip(*pairs, strict=True))
            at = f"1e{len(str(size)) - 1}"
            figures[f"appends_per_s_{at}"] = 1 / here_s
            figures |= {f"{k}_{at}": v for k, v in measure_proofs(long, rng).items()}
            figures["append_flat"] = here_s / base_s
            print(f"{size:,} entries: {json.dumps(figures)}", flush=True)
            size *= 10
        check, took_s = timed(short.ledger.verify)
        assert check.ok
        figures["verified_per_s"] = check.num_entries / took_s
        figures["largest"] = largest
    report("ledger", figures)


if __name__ == "__main__":
    main()
