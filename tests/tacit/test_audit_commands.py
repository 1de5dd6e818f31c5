"""``tacit audit`` offline: exports, proofs, and the heads kept in MLflow."""

import json
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import delete
from typer.testing import CliRunner

from gatekeeper.ledger import Ledger
from gatekeeper.tables import LedgerRow
from tacit.cli import app
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.heads import HeadKeeper, HeadStore
from tacit.signing import Signer

# MLflow's own store uses a loader SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


class Bench:
    """A ledger of nine entries with its key, beside an MLflow store."""

    def __init__(self, db: Database, folder: Path, uri: str) -> None:
        self.db, self.folder, self.uri = db, folder, uri
        self.ledger = Ledger(db, Signer.load_or_create(folder / "keys"))
        self.heads = HeadStore(uri)
        self.append(9)

    def append(self, number: int) -> None:
        with self.db.session() as session:
            for i in range(number):
                self.ledger.append(session, "decision", f"d-{i}", {"number": i})

    def keep_head(self) -> None:
        HeadKeeper(self.heads, self.ledger.signed_head).follow()

    def verify(self, tree: object, *options: str) -> tuple[int, str]:
        file = self.folder / "file.json"
        file.write_text(json.dumps(tree))
        done = CliRunner().invoke(
            app, ["audit", "verify", str(file), "--home", str(self.folder), *options]
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout

    def verify_with_mlflow(self) -> tuple[int, str]:
        return self.verify(self.ledger.export(), "--mlflow", self.uri)


@pytest.fixture
def bench(sqlite_database: Database, tmp_path: Path, mlflow_uri: str) -> Bench:
    return Bench(sqlite_database, tmp_path, mlflow_uri)


def test_export_verifies_alone_and_with_the_heads_in_mlflow(bench: Bench) -> None:
    code, said = bench.verify(bench.ledger.export())
    assert (code, "9 entries" in said, "all verified" in said) == (0, True, True)
    bench.keep_head()
    bench.append(3)
    bench.keep_head()
    code, said = bench.verify_with_mlflow()
    assert (code, "2 heads in MLflow" in said) == (0, True)


def test_ledger_cut_and_written_on_with_the_real_key_is_found_by_mlflow_alone(
    bench: Bench,
) -> None:
    bench.keep_head()
    with bench.db.session() as session:
        session.execute(delete(LedgerRow).where(LedgerRow.sequence >= 6))
    assert bench.verify(bench.ledger.export())[0] == 0
    code, said = bench.verify_with_mlflow()
    assert (code, "entries 6 to 8 are missing: the end was cut off" in said) == (1, True)
    with bench.db.session() as session:
        for i in range(4):
            bench.ledger.append(session, "decision", f"d-other-{i}", {"number": i})
    code, said = bench.verify_with_mlflow()
    assert (code, "entry 8: root differs from the one noted" in said) == (1, True)


def test_head_that_nobody_signed_and_an_mlflow_that_is_away_are_problems(
    bench: Bench, tmp_path: Path
) -> None:
    forged = Signer.load_or_create(tmp_path / "elsewhere").seal({"sequence": 3, "root": "0" * 64})
    bench.heads.add(forged)
    code, said = bench.verify_with_mlflow()
    assert (code, "a head in MLflow does not verify" in said) == (1, True)
    code, said = bench.verify(bench.ledger.export(), "--mlflow", "http://127.0.0.1:9")
    assert (code, "could not be read" in said) == (1, True)


def test_proofs_verify_without_the_ledger_and_altered_ones_do_not(bench: Bench) -> None:
    proof = bench.ledger.prove(4).model_dump(mode="json")
    code, said = bench.verify({"format": "tacit-proofs/1", "about": "d-4", "proofs": [proof]})
    assert (code, "entry 4, decision of d-4, is in" in said) == (0, True)
    growth = bench.ledger.prove_growth(5).model_dump(mode="json")
    assert "the first 5 entries are the beginning of the 9" in bench.verify(growth)[1]
    altered = proof | {"entry": proof["entry"].replace('"number":4', '"number":5')}
    with pytest.raises(IntegrityError):
        bench.verify(altered)
    with pytest.raises(IntegrityError):
        bench.verify({"format": "tacit-proofs/1", "about": "d-4", "proofs": []})


def test_heads_are_kept_once_and_put_off_while_mlflow_is_away(bench: Bench) -> None:
    class Away(HeadStore):
        away = True

        def add(self, envelope: str) -> None:
            if self.away:
                raise MlflowException("no answer")
            super().add(envelope)

    store = Away(bench.uri)
    keeper = HeadKeeper(store, bench.ledger.signed_head, interval_s=3600)
    keeper.follow()
    assert store.all() == []
    store.away = False
    keeper.follow()
    assert store.all() == []
    keeper.follow(now=True)
    keeper.follow(now=True)
    bench.keep_head()
    assert store.all() == [bench.ledger.signed_head()]
