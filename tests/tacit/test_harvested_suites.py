"""What candidates are asked beside the suites on disk: held-out feedback, and what was learned."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.config import load_settings
from tacit.contracts import Suite
from tacit.stages import Stages
from tests.builders import candidate, digest, tiny_checkpoint
from tests.tacit.teaching import send

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
TAUGHT = ["apple pie recipe", "bread without yeast", "cheese from goats", "dates in syrup"]
HELD_OUT = ["figs in winter", "grapes or raisins", "honey from heather", "plums gone soft"]


@pytest.fixture
def stages(tmp_path: Path, mlflow_uri: str) -> Iterator[Stages]:
    """A policy line whose champion was taught four prompts, with four others held out."""
    overrides = [f"tracking.uri={mlflow_uri}", "evaluator.min_holdout_items=2"]
    made = Stages(load_settings(home=tmp_path / "home", overrides=overrides))
    champion = tiny_checkpoint(made.checkpoints)
    keys = send(made, *TAUGHT)
    learned = candidate(weights=champion, parent=digest("first"), batch_digest=digest("batch"))
    with made.database.session() as session:
        genesis = made.gatekeeper.genesis(session, made.policy, champion, by="test")
        made.releases.first(session, made.policy, genesis.envelope, by="test")
        made.candidates.add(session, learned)
        made.events.assign(session, keys, batch_id=learned.batch_id)
    send(made, *HELD_OUT, holdout_share=1, answer="another answer")
    yield made
    made.database.dispose()


def asked(stages: Stages, name: str) -> dict[str, str]:
    suites: dict[str, Suite] = {suite.name: suite for suite in stages.suites()}
    return {item.prompt[-1].content: item.item_id for item in suites[name].items}


def test_what_the_champion_was_taught_is_asked_again(stages: Stages) -> None:
    found = asked(stages, "retention")
    assert found.keys() == set(TAUGHT)
    (learned,) = stages.candidates.lineage(stages.champion())
    assert all(item_id.startswith(f"{learned.batch_id}:") for item_id in found.values())
    assert asked(stages, "holdout").keys() == set(HELD_OUT)


def test_what_was_trained_on_is_never_held_out(stages: Stages) -> None:
    send(stages, TAUGHT[0], holdout_share=1, answer="a newer answer")
    assert asked(stages, "holdout").keys() == set(HELD_OUT)
    assert asked(stages, "retention")[TAUGHT[0]].startswith("holdout:")


def test_a_batch_that_was_set_aside_is_asked_no_more(stages: Stages) -> None:
    (learned,) = stages.candidates.lineage(stages.champion())
    with stages.database.session() as session:
        stages.events.set_aside(session, [learned.batch_id], reason="rolled_back")
    assert {suite.name for suite in stages.suites()} == {"holdout"}
