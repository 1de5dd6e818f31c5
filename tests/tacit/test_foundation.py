"""Database, keys, signing and checkpoints hold what their docstrings promise."""

import errno
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from tacit.checkpoints import CheckpointStore
from tacit.database import Base, Database
from tacit.errors import IntegrityError, NotAllowedError, NotAuthenticatedError, TacitError
from tacit.keys import ApiKeyRow, KeyStore, Scope
from tacit.policies import load_policy
from tacit.signing import Signer, Verifier
from tests.builders import report, tiny_checkpoint, user


def test_migrations_make_the_schema_the_models_declare(database: Database) -> None:
    for stage in ("collector", "trainer", "evaluator", "gatekeeper", "deploy"):
        importlib.import_module(f"{stage}.tables")
    importlib.import_module("tacit.cycles")
    with database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert differences == []


def test_concurrent_writers_queue_and_none_is_lost(database: Database) -> None:
    keys = KeyStore(database)
    threads = [
        threading.Thread(target=keys.create, args=(f"k{i}",), kwargs={"scopes": {Scope.SEND}})
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(ApiKeyRow)) == 12


def test_key_opens_only_what_it_is_bound_to(database: Database) -> None:
    keys = KeyStore(database)
    key = keys.create("shop", scopes={Scope.SEND}, source="shop")
    principal = keys.authenticate(key)
    principal.require(Scope.SEND)
    with pytest.raises(NotAllowedError, match="review"):
        principal.require(Scope.REVIEW)
    with pytest.raises(NotAllowedError, match="source 'shop'"):
        principal.require_target(source="other")


@pytest.mark.parametrize("key", [None, "", "tacit..", "tacit.x.y", "Bearer", "tacit.%00.a"])
def test_missing_or_empty_key_is_never_a_way_in(sqlite_database: Database, key: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        KeyStore(sqlite_database).authenticate(key)


def test_revoked_key_is_refused_and_its_name_is_free(database: Database) -> None:
    keys = KeyStore(database)
    old = keys.create("shop", scopes={Scope.SEND})
    keys.revoke("shop")
    with pytest.raises(NotAuthenticatedError, match="revoked"):
        keys.authenticate(old)
    keys.authenticate(keys.create("shop", scopes={Scope.SEND}))


def test_altered_envelope_does_not_open(tmp_path: Path) -> None:
    signer = Signer.load_or_create(tmp_path)
    envelope = signer.seal({"a": 1})
    assert Verifier.load(tmp_path / "signing.pub").open(envelope) == {"a": 1}
    altered = json.loads(envelope)
    altered["payload"] = json.loads(signer.seal({"a": 2}))["payload"]
    for bad in (json.dumps(altered), "", "{}", "[]", "null", envelope[:-9]):
        with pytest.raises(IntegrityError):
            signer.open(bad)


def test_envelope_of_another_key_does_not_open(tmp_path: Path) -> None:
    mine = Signer.load_or_create(tmp_path / "a")
    with pytest.raises(IntegrityError):
        mine.open(Signer.load_or_create(tmp_path / "b").seal({"a": 1}))


def test_signing_key_from_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Signer.load_or_create(tmp_path)

    def refuse(path: Path, _: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    for _ in range(2):
        assert Signer.load_or_create(tmp_path).public_pem() == made.public_pem()
        (tmp_path / "signing.pub").unlink(missing_ok=True)  # the key alone signs too
    (tmp_path / "signing.pub").write_text("another key")
    with pytest.raises(IntegrityError, match="that of another key"):
        Signer.load_or_create(tmp_path)


def test_signing_key_that_cannot_be_made_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IntegrityError, match="`tacit keys signing FOLDER` makes one"):
        Signer.load_or_create(tmp_path / "file" / "keys")
    (tmp_path / "signing.pem").write_text("half a key")
    with pytest.raises(IntegrityError, match=r"an Ed25519 private key in .*signing\.pem"):
        Signer.load_or_create(tmp_path)


def test_store_finds_every_kind_of_tampering(store: CheckpointStore) -> None:
    digest = tiny_checkpoint(store)
    store.verify(digest)
    weights = store.path(digest) / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        store.verify(digest)
    weights.write_bytes(good)
    (store.path(digest) / "extra.py").write_text("x")
    with pytest.raises(IntegrityError, match=r"extra\.py"):
        store.verify(digest)


def test_store_counts_the_weights_that_a_policy_stands_on(
    store: CheckpointStore, tmp_path: Path
) -> None:
    digest = tiny_checkpoint(store)
    assert store.num_weights(digest) == load_policy(store, digest).num_weights
    (tmp_path / "adapter_config.json").write_text("{}")
    assert store.num_weights(store.put(tmp_path, base=digest)) == store.num_weights(digest)
    assert store.num_weights(store.put(tmp_path)) == 0


def test_policy_generates_the_same_alone_and_in_a_batch(store: CheckpointStore) -> None:
    policy = load_policy(store, tiny_checkpoint(store))
    prompts = [user("where is my order"), user("a"), user("shipping " * 9)]
    together = policy.generate(prompts, max_new_tokens=5)
    alone = [policy.generate([p], max_new_tokens=5)[0] for p in prompts]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert all(len(c.token_ids) == len(c.logprobs) for c in together)


def test_errors_survive_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(IntegrityError("a", got="b", mend="c")))
    assert (str(error), error.status) == ("expected a; got b. c", 409)
    assert isinstance(error, TacitError)


def test_sdk_and_contracts_import_nothing_heavy() -> None:
    code = (
        "import sys, tacit.contracts, tacit.config, collector.client\n"
        "heavy = {'torch', 'ray', 'trl', 'transformers', 'mlflow', 'kafka', 'sqlalchemy'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_reports_from_before_keep_their_digests() -> None:
    tree = report().model_dump(mode="json")
    assert not tree.keys() & {"calibrations", "tests", "previous", "changed_suites"}
    assert not tree["suites"][0].keys() & {"checker", "suite_items", "looks"}
