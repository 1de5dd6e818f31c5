"""What the loop compares with is what was signed, whatever the table says."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from deploy.tables import ReleaseRow
from tacit.checkpoints import CheckpointStore
from tacit.database import Database
from tacit.errors import IntegrityError, NotFoundError
from tests import builders
from tests.deploy.scenes import line

WEAKER = builders.digest("weaker")


@pytest.mark.parametrize(
    "written",
    [{"weights": WEAKER}, {"payload": WEAKER}, {"policy": "other"}, {"bundle": "{}"}],
    ids=lambda written: next(iter(written)),
)
@pytest.mark.parametrize("opened_before", [True, False])
def test_altered_row_moves_neither_champion_nor_anchor(
    sqlite_database: Database,
    store: CheckpointStore,
    tmp_path: Path,
    written: dict[str, Any],
    opened_before: bool,
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    desk, signed = scene.desk, scene.desk.signed
    if opened_before:
        assert desk.anchor("default") == signed.weights(first.release_id) == first.weights
    if "payload" in written:
        altered = first.model_copy(update={"weights": WEAKER})
        written = {"payload": altered.model_dump_json()}
    with sqlite_database.session() as session:
        session.execute(update(ReleaseRow).values(**written))
    if "bundle" in written and opened_before:
        # Nobody reads it again; serving does, at every load.
        assert signed.weights(first.release_id) == first.weights
        return
    with pytest.raises(IntegrityError):
        signed.weights(first.release_id)
    with pytest.raises((IntegrityError, NotFoundError)):
        desk.anchor("default")


def test_candidate_of_an_altered_champion_is_not_promoted(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first = scene.first()
    altered = first.model_copy(update={"weights": WEAKER})
    with sqlite_database.session() as session:
        session.execute(
            update(ReleaseRow).values(weights=WEAKER, payload=altered.model_dump_json())
        )
    with pytest.raises(IntegrityError, match="r-default-0 as it was signed"):
        scene.promote(scene.evidence(1))


def test_releases_that_change_places_are_noticed(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    scene = line(sqlite_database, store, tmp_path)
    first, second = scene.first(), scene.promote(scene.evidence(1))
    with sqlite_database.session() as session:
        for release, sequence in ((first, 7), (second, 0)):
            row = session.get(ReleaseRow, release.release_id)
            assert row is not None
            row.sequence = sequence
            session.flush()
    for release in (first, second):
        with pytest.raises(IntegrityError):
            scene.desk.signed.weights(release.release_id)
    with pytest.raises(IntegrityError):
        scene.desk.anchor("default")
