"""What the probes of poison are given: all that taught the champion, beside the batch under way."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluator.probing import Probing
from tacit.config import Settings
from tests.integration.learning_scene import (
    BAD,
    HONEST,
    learning_settings,
    promoted,
    roll_back,
    running,
    teach,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


@pytest.fixture
def settings(
    tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a home that is thrown away; Ray is not started."""
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    yield learning_settings(tmp_path / "home", mlflow_uri)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_probes_look_back_on_what_taught_the_champion(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches since the first release, but for the one under way and what was taken back."""
    seen: list[tuple[set[str], ...]] = []

    class Noted(Probing):
        """As it is, and writes down what it gets."""

        def __init__(
            self, chosen: Any, suites: Any, learned: Any, earlier: Any, *more: Any
        ) -> None:
            seen.append(tuple({event.event_key for event in part} for part in (learned, earlier)))
            super().__init__(chosen, suites, learned, earlier, *more)

    monkeypatch.setattr("evaluator.evaluation.Probing", Noted)
    with running(settings) as loop:
        first = teach(loop, HONEST, where="first")
        promoted(loop)
        second = teach(loop, BAD, where="second")
        promoted(loop)
        roll_back(loop)
        third = teach(loop, HONEST, where="third")
        promoted(loop)
    assert seen == [(first, set()), (second, first), (third, first)]
