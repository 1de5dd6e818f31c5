"""A rebuild: the frozen anchor taught everything once more, as a candidate like any other."""

import pytest
from mlflow import MlflowClient

from tacit.config import Settings, with_overrides
from tacit.contracts import DecisionOutcome
from tacit.cycles import CycleState
from tests.integration.test_consolidate import (
    decided,
    promoted,
    rebuilt_from_record,
    running,
    screen,
)
from tests.integration.test_consolidate import settings as adapters  # noqa: F401
from trainer.interpolate import interpolate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


@pytest.mark.parametrize("full_fine_tuning", [True, False])
def test_every_second_update_starts_from_the_anchor(
    adapters: Settings,  # noqa: F811
    full_fine_tuning: bool,
) -> None:
    overrides = [
        "trainer.rebuild.every=2",
        "trainer.rebuild.num_epochs=4",
        "trainer.rebuild.interpolation_alphas=0.75",
        f"trainer.full_fine_tuning={str(full_fine_tuning).lower()}",
        "trainer.interpolation_alphas=0.5,1",
        "trainer.doubted_weight=1",  # words drawn by number contradict each other
    ]
    with running(with_overrides(adapters, overrides)) as loop:
        anchor = loop.champion()
        _, first = promoted(loop)
        batch, replay = loop.batches.get(first.batch_id)
        assert (batch.start, batch.trained_from, replay) == (None, anchor, [])
        assert first.choice is not None

        cycle, second = promoted(loop)
        batch, replay = loop.batches.get(second.batch_id)
        assert (batch.parent, batch.start) == (first.weights, anchor)
        assert second.parent == first.weights
        assert loop.champion() == second.weights
        taught = {e.interaction.prompt for e in loop.events.events_of(first.batch_id)}
        assert {example.prompt for example in replay} == taught
        assert {example.origin for example in replay} == {"accepted"}
        assert second.alpha == 0.75
        assert (
            second.trained
            != second.weights
            == interpolate(
                loop.checkpoints, parent=first.weights, trained=second.trained, alpha=0.75
            )
        )
        assert first.config["num_epochs"] != second.config["num_epochs"] == 4
        run = MlflowClient(loop.settings.tracking_uri).get_run(str(cycle.mlflow_run_id))
        assert run.data.tags["tacit.start"] == anchor

        events = loop.events.events_of(second.batch_id)
        rebuilt_from_record(loop, second, events)


def test_what_was_turned_away_puts_off_no_rebuild_and_a_rebuild_no_update(
    adapters: Settings,  # noqa: F811
) -> None:
    overrides = [
        "trainer.rebuild.every=3",
        "trainer.doubted_weight=1",
        "loop.min_events=7",
        "loop.max_events=7",
    ]
    with running(with_overrides(adapters, overrides)) as loop:
        screen(loop.settings, loop, *range(24, 36))
        anchor = loop.champion()
        _, first = promoted(loop)
        starts = []
        for _ in range(4):
            cycle = decided(loop, DecisionOutcome.REJECTED)
            assert cycle.state == CycleState.REJECTED, cycle.reason
            batch, _ = loop.batches.get(str(cycle.batch_id))
            assert batch.parent == first.weights
            starts.append(batch.start)
        assert starts == [None, anchor, None, anchor]
