"""Rebuilding a candidate: the same bytes, or a clear word on what differs or is not there."""

from typing import Any

import pytest

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, PolicyCandidate, VariantChoice
from tacit.errors import IntegrityError, NotFoundError, TrainingError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal, settings, train
from tests.trainer.here import Here
from trainer.interpolate import interpolate
from trainer.provenance import PROCESSOR, library_versions
from trainer.reproduce import Reproduction, reproduce
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS, REPLAY = mixed_events(8), replay_examples(2)
SETTINGS = settings(num_workers=1, num_epochs=1)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)


def made_from(
    store: CheckpointStore, parent: Digest, alpha: float, chosen: TrainerSettings = SETTINGS
) -> PolicyCandidate:
    """A candidate as the loop records it."""
    trained, _ = train(store, parent, EVENTS, REPLAY, settings=chosen)
    return build.candidate(
        weights=interpolate(store, parent=parent, trained=trained, alpha=alpha),
        parent=parent,
        batch_digest=seal(parent, EVENTS, REPLAY).digest(),
        config=chosen.model_dump(mode="json"),
        versions={**library_versions(), PROCESSOR: "abacus"},
        choice=VariantChoice(alpha=alpha, trained=trained, reason="so", variants=()),
    )


def again(store: CheckpointStore, candidate: PolicyCandidate, **given: Any) -> Reproduction:
    values = {"batch": seal(candidate.parent, EVENTS, REPLAY), "events": EVENTS, "replay": REPLAY}
    return reproduce(
        candidate,
        **{**values, **given},
        store=store,
        on_step=lambda step: None,
        open_trainer=lambda chosen, scratch: PolicyTrainer(
            chosen, scratch, open_group=lambda _: Here(scratch)
        ),
    )


def differing(found: Reproduction) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.recorded, fact.here) for fact in found.facts if not fact.same}


def test_a_variant_of_an_adapter_on_an_adapter_comes_out_again(store):
    first = made_from(store, build.tiny_checkpoint(store), 1.0)
    candidate = made_from(store, first.weights, 0.5)
    before = set(store.root.iterdir())
    found = again(store, candidate)
    assert found.same
    assert differing(found) == {}
    assert found.weights == candidate.weights != candidate.trained
    assert set(store.root.iterdir()) == before


def test_an_update_with_every_add_on_and_a_teacher_of_its_own_comes_out_again(store):
    anchor = build.tiny_checkpoint(store)
    parent, _ = train(store, anchor, EVENTS, settings=SETTINGS)
    chosen = settings(
        num_workers=1,
        ewc={"weight": 10.0},
        distillation={"weight": 1.0, "teacher": anchor},
        sparse={"fraction": 0.2},
        kl_reference=anchor,
    )
    candidate = made_from(store, parent, 1.0, chosen)
    assert differing(again(store, candidate)) == {}
    assert candidate.weights != made_from(store, parent, 1.0).weights


def test_another_version_is_named_and_does_not_hide_the_same_weights(store):
    candidate = made_from(store, build.tiny_checkpoint(store), 1.0)
    versions = {**candidate.versions, "torch": "1.0", PROCESSOR: "slide rule", "gone": "3"}
    found = again(store, candidate.model_copy(update={"versions": versions}))
    assert found.same
    assert differing(found) == {
        "version torch": ("1.0", candidate.versions["torch"]),
        "version processor": ("slide rule", "abacus"),
        "version gone": ("3", "-"),
    }


def test_other_weights_are_a_difference(store):
    candidate = made_from(store, build.tiny_checkpoint(store), 1.0)
    forged = candidate.model_copy(update={"weights": build.digest("forged")})
    found = again(store, forged)
    assert not found.same
    assert differing(found) == {"weights": (build.digest("forged"), candidate.weights)}


def test_settings_that_were_not_there_then_are_named(store):
    candidate = made_from(store, build.tiny_checkpoint(store), 1.0)
    old = {name: value for name, value in candidate.config.items() if name != "kl_weight"}
    found = again(store, candidate.model_copy(update={"config": old}))
    assert found.same
    assert differing(found) == {"config kl_weight": ("-", "0.1")}


@pytest.mark.parametrize(
    ("config", "message"),
    [({"gpus_per_worker": 1.0}, "on CPUs"), ({"no_such_setting": 1}, "no_such_setting")],
)
def test_what_cannot_be_rebuilt_here_is_refused(store, config, message):
    parent = build.tiny_checkpoint(store)
    candidate = build.candidate(
        parent=parent, batch_digest=seal(parent, EVENTS, REPLAY).digest(), config=config
    )
    with pytest.raises(TrainingError, match=message):
        again(store, candidate)


def test_a_tampered_event_another_batch_and_a_missing_parent_are_refused(store):
    parent = build.tiny_checkpoint(store)
    candidate = build.candidate(
        parent=parent,
        batch_digest=seal(parent, EVENTS, REPLAY).digest(),
        config=SETTINGS.model_dump(mode="json"),
    )
    tampered = [EVENTS[0].model_copy(update={"cluster": "other"}), *EVENTS[1:]]
    with pytest.raises(IntegrityError, match=r"event 0.*helpdesk/e-0"):
        again(store, candidate, events=tampered)
    with pytest.raises(IntegrityError, match="batch with digest"):
        again(store, candidate, batch=seal(parent, EVENTS))
    elsewhere = CheckpointStore(store.root / "empty")
    with pytest.raises(NotFoundError, match=parent):
        again(elsewhere, candidate)
