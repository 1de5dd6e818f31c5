"""How a policy line begins, and how its loop trains then."""

from pathlib import Path
from typing import Any

import pytest

import tacit.service
import tacit.start
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, load_settings, with_overrides
from tacit.contracts import Digest
from tacit.stages import Stages
from tacit.start import line_begins_with
from tests.builders import tiny_checkpoint


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a line whose first policy is a tiny one."""

    def first_policy(_: Settings, store: CheckpointStore) -> Digest:
        return tiny_checkpoint(store)

    monkeypatch.setattr(tacit.start, "first_policy", first_policy)
    return load_settings(home=tmp_path / "home")


def test_a_line_that_began_goes_on_with_what_it_has(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(settings)
    weights = line_begins_with(settings, stages.checkpoints)
    with stages.database.session() as session:
        genesis = stages.gatekeeper.genesis(session, stages.policy, weights, by="test")
        stages.releases.first(session, stages.policy, genesis.envelope, by="test")
    stages.database.dispose()
    monkeypatch.delattr(tacit.start, "first_policy")  # it must not be made again
    assert line_begins_with(settings, stages.checkpoints) == weights


@pytest.mark.parametrize(
    ("override", "share", "whole"),
    [
        ("loop.min_events=3", 0.8, True),
        ("trainer.replay.share=0.3", 0.3, True),
        ("trainer.full_fine_tuning=false", 0.1, False),
    ],
)
def test_the_loop_trains_a_small_policy_as_suits_it(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    share: float,
    whole: bool,
) -> None:
    begun: list[Any] = []

    class Recorder:
        def __init__(self, settings: Settings, **_: object) -> None:
            begun.append(settings)

        def __enter__(self) -> "Recorder":
            return self

        def __exit__(self, *_: object) -> None: ...

        def begin(self, first_policy: Any, *, by: str) -> None:
            begun.append(first_policy())

        def run_forever(self) -> None: ...

    monkeypatch.setattr("tacit.loop.OnlineLoop", Recorder)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    tacit.service.run_loop(with_overrides(settings, [override]))
    chosen, first = begun
    assert (chosen.trainer.replay.share, chosen.trainer.full_fine_tuning) == (share, whole)
    assert CheckpointStore(settings.checkpoints_path).verify(first)
