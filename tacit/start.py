"""What has to exist before the processes start: the schema, the signing key, the first keys."""

import os
import time
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from deploy.tables import ReleaseRow
from gatekeeper.key_entries import KeyEntries
from gatekeeper.ledger import Ledger
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Digest
from tacit.database import Database
from tacit.demo.base import make_base
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import install_world
from tacit.errors import ConfigError, NotAuthenticatedError, UnavailableError
from tacit.keys import KeyStore, Scope
from tacit.signing import PRIVATE_NAME, PUBLIC_NAME, Signer

PRODUCT_SOURCE = "product"
_LOOK_S = 0.5
_SIGNING_FILES = {"loop": (PRIVATE_NAME, PUBLIC_NAME), "serving": (PUBLIC_NAME,)}
"""A loop that has got the public half alone need not wait: it can say what is wrong."""


def prepare(settings: Settings) -> None:
    """Migrate the database and make the signing key and the first API keys; safe to repeat."""
    # What products said waits in there unredacted.
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.resolved_database_url)
    database.migrate()
    ledger = Ledger(database, Signer.load_or_create(settings.signing_path))
    entries = KeyEntries(database, ledger)
    keys = KeyStore(database, journal=ledger.append, vouch=entries.require)
    ensure_key(keys, settings, "admin", {Scope.ADMIN})
    ensure_key(keys, settings, "product", {Scope.SEND}, source=PRODUCT_SOURCE)
    database.dispose()


def wait_until_prepared(settings: Settings, role: str, *, timeout_s: float = 120.0) -> None:
    """Return once there is what ``role`` needs of all that :func:`prepare` makes.

    Raises UnavailableError that says what is still missing after ``timeout_s``.
    """
    database = Database(settings.resolved_database_url)
    deadline = time.monotonic() + timeout_s
    try:
        while missing := _missing(settings, role, database):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"what `tacit run control` makes, within {timeout_s:g} s",
                    got=missing,
                    mend="Start control; do all have the same database, home and signing key?",
                )
            time.sleep(_LOOK_S)
    finally:
        database.dispose()


def _missing(settings: Settings, role: str, database: Database) -> str:
    folder, names = settings.signing_path, _SIGNING_FILES.get(role, ())
    if names and not any((folder / name).exists() for name in names):
        return f"no {names[0]} in {folder}"
    try:
        current, newest = database.versions()
    except OperationalError as error:
        return str(error.orig)
    return "" if current == newest else f"a schema at {current}, not {newest}"


def ensure_key(
    keys: KeyStore, settings: Settings, name: str, scopes: set[Scope], *, source: str | None = None
) -> str:
    """The key kept in ``keys_path/<name>.key``, made where there is none that works."""
    path = settings.keys_path / f"{name}.key"
    if path.exists():
        text = path.read_text().strip()
        try:
            keys.authenticate(text)
            return text
        except NotAuthenticatedError:
            path.unlink()
    if any(key.name == name for key in keys.in_force()):
        keys.revoke(name)
    text = keys.create(name, scopes=scopes, source=source, policy=None)
    _write_secret(path, text)
    return text


def line_begins_with(settings: Settings, store: CheckpointStore) -> Digest:
    """The weights of the line's first release; where there is none yet, what it will be.

    Raises what ``first_policy`` raises.
    """
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
        first = select(ReleaseRow.weights).where(
            ReleaseRow.policy == settings.policy, ReleaseRow.sequence == 0
        )
        with database.reader() as session:
            weights = session.scalar(first)
    finally:
        database.dispose()
    return weights or first_policy(settings, store)


def first_policy(settings: Settings, store: CheckpointStore) -> Digest:
    """The weights a new policy line begins with: ``settings.model``, or the demo's policy."""
    if settings.model is not None:
        return import_model(settings.model, store)
    world = helpdesk_world()
    install_world(world, settings)
    return make_base(world, store, cache=base_cache())


def base_cache() -> Path:
    """Folder where policies made on the spot are kept for the next time."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "tacit"


def import_model(model: str, store: CheckpointStore) -> Digest:
    """Put a model from a folder or from the Hugging Face hub into the store.

    Raises ConfigError if it cannot be loaded or has no chat template.
    """
    import tempfile

    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "a folder or hub id that transformers can load",
            got=f"{model}: {error}",
            mend="Pass --model with a folder that holds config.json, weights and a tokenizer.",
        ) from error
    if not tokenizer.chat_template:
        raise ConfigError(
            "a model whose tokenizer has a chat template",
            got=f"{model}, which has none",
            mend="Use an instruction-tuned model or add `chat_template` to its tokenizer.",
        )
    with tempfile.TemporaryDirectory() as folder:
        loaded.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return store.put(Path(folder))


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
