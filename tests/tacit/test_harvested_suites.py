"""What candidates are asked beside the suites on disk: held-out feedback, and what was learned."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from tacit.config import load_settings, with_overrides
from tacit.contracts import Correction, Suite, short, utc_now
from tacit.stages import Stages
from tests.builders import candidate, digest, event, interaction, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
TAUGHT = ["apple pie recipe", "bread without yeast", "cheese from goats", "dates in syrup"]
HELD_OUT = ["figs in winter", "grapes or raisins", "honey from heather", "plums gone soft"]


@pytest.fixture
def stages(tmp_path: Path, mlflow_uri: str) -> Iterator[Stages]:
    """A policy line whose champion was taught four prompts, with four others held out."""
    overrides = [f"tracking.uri={mlflow_uri}", "evaluator.min_holdout_items=2"]
    made = Stages(load_settings(home=tmp_path / "home", overrides=overrides))
    champion = tiny_checkpoint(made.checkpoints)
    keys = send(made, TAUGHT, holdout_share=0)
    learned = candidate(weights=champion, parent=digest("first"), batch_digest=digest("batch"))
    with made.database.session() as session:
        genesis = made.gatekeeper.genesis(session, made.policy, champion, by="test")
        made.releases.first(session, made.policy, genesis.envelope, by="test")
        made.candidates.add(session, learned)
        made.events.assign(session, keys, batch_id=learned.batch_id)
    send(made, HELD_OUT, holdout_share=1, answer="another answer")
    yield made
    made.database.dispose()


def send(
    stages: Stages, prompts: Sequence[str], *, holdout_share: float, answer: str = "an answer"
) -> list[str]:
    settings = with_overrides(
        stages.settings, [f"collector.screening.holdout_share={holdout_share}"]
    )
    stream = open_stream(settings)
    events = [
        event(
            f"e-{short(digest(f'{prompt} {answer}'))}",
            subject_id=f"u-{short(digest(f'{prompt} {answer}'))}",
            occurred_at=utc_now(),
            interaction=interaction(prompt, "said"),
            feedback=Correction(completion=answer),
        )
        for prompt in prompts
    ]
    with Ingestor(stages.database, stream, settings) as ingestor:
        ingestor.accept(events)
    Consumer(stages.database, stream, settings).drain()
    stream.close()
    return [one.event_key for one in events]


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
    send(stages, TAUGHT[:1], holdout_share=1, answer="a newer answer")
    assert asked(stages, "holdout").keys() == set(HELD_OUT)
    assert asked(stages, "retention")[TAUGHT[0]].startswith("holdout:")


def test_a_batch_that_was_set_aside_is_asked_no_more(stages: Stages) -> None:
    (learned,) = stages.candidates.lineage(stages.champion())
    with stages.database.session() as session:
        stages.events.set_aside(session, [learned.batch_id], reason="rolled_back")
    assert {suite.name for suite in stages.suites()} == {"holdout"}
