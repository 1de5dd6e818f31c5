from hashlib import sha256

import pytest
from pydantic import ValidationError

from tacit.contracts import Digest, SealedBatch, sha256_digest
from tacit.errors import IntegrityError, InvalidInputError
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal
from trainer.seal import event_root, seal_batch, seal_consolidation, verify_batch

PARENT = build.digest("parent")


def test_the_batch_names_events_and_replay_in_their_order():
    events, replay = mixed_events(3), replay_examples(2)
    batch = seal(PARENT, events, replay)
    assert [entry.event_key for entry in batch.entries] == [e.event_key for e in events]
    assert [entry.event_digest for entry in batch.entries] == [e.digest() for e in events]
    assert [entry.weight for entry in batch.entries] == [e.weight for e in events]
    assert batch.replay == tuple(example.digest() for example in replay)


def test_what_it_starts_from_is_named_only_where_that_is_not_the_parent():
    anchor = build.digest("anchor")

    def starting(start: Digest) -> SealedBatch:
        return seal_batch(
            mixed_events(2),
            policy="default",
            parent=PARENT,
            start=start,
            replay=[],
            watermark={"tacit.feedback/0": 1},
            sealed_at=build.MOMENT,
        )

    usual, rebuild = seal(PARENT, mixed_events(2)), starting(anchor)
    assert starting(PARENT) == usual
    assert "start" not in usual.model_dump(mode="json")
    assert (usual.trained_from, rebuild.trained_from) == (PARENT, anchor)
    assert rebuild.digest() != usual.digest()
    assert SealedBatch.model_validate_json(rebuild.model_dump_json()) == rebuild


def test_the_root_is_that_of_rfc_6962_over_digest_bytes():
    one, two, three = (sha256_digest(name) for name in (b"1", b"2", b"3"))
    leaves = [sha256(b"\0" + bytes.fromhex(d[7:])).digest() for d in (one, two, three)]
    left = sha256(b"\1" + leaves[0] + leaves[1]).digest()
    assert event_root([one, two, three]) == "sha256:" + sha256(b"\1" + left + leaves[2]).hexdigest()


def test_the_same_inputs_seal_to_the_same_batch():
    assert seal(PARENT, mixed_events()).digest() == seal(PARENT, mixed_events()).digest()


def test_an_untouched_batch_verifies():
    events, replay = mixed_events(4), replay_examples(2)
    verify_batch(seal(PARENT, events, replay), events, replay)


@pytest.mark.parametrize("change", ["order", "weight", "text", "missing", "extra"])
def test_events_that_are_not_those_sealed_are_refused(change):
    events = mixed_events(4)
    batch = seal(PARENT, events)
    altered = {
        "order": [events[1], events[0], *events[2:]],
        "weight": [events[0].model_copy(update={"weight": 0.1}), *events[1:]],
        "text": [build.screened("e-0", prompt="something else"), *events[1:]],
        "missing": events[:-1],
        "extra": [*events, build.screened("e-9")],
    }[change]
    with pytest.raises(IntegrityError):
        verify_batch(batch, altered, [])


@pytest.mark.parametrize("altered", [[], replay_examples(2)[::-1], replay_examples(3)])
def test_replay_that_is_not_that_sealed_is_refused(altered):
    events = mixed_events(2)
    with pytest.raises(IntegrityError, match="replay"):
        verify_batch(seal(PARENT, events, replay_examples(2)), events, altered)


def test_a_manifest_whose_root_does_not_fit_is_refused():
    events = mixed_events(2)
    batch = seal(PARENT, events).model_copy(update={"merkle_root": build.digest("other")})
    with pytest.raises(IntegrityError, match="Merkle"):
        verify_batch(batch, events, [])


def test_nothing_twice_nothing_of_another_line_and_not_nothing():
    def sealed(events: list) -> SealedBatch:
        return seal_batch(
            events,
            policy="default",
            parent=PARENT,
            replay=[],
            watermark={},
            sealed_at=build.MOMENT,
        )

    event = build.screened()
    with pytest.raises(InvalidInputError, match="twice"):
        sealed([event, event])
    with pytest.raises(InvalidInputError, match="other"):
        sealed([event.model_copy(update={"policy": "other"})])
    with pytest.raises(InvalidInputError, match="at least one"):
        sealed([])


def consolidation(replay: list) -> SealedBatch:
    return seal_consolidation(
        policy="default", parent=PARENT, replay=replay, watermark={}, sealed_at=build.MOMENT
    )


def test_a_consolidation_has_replay_and_no_events():
    replay = replay_examples(3)
    batch = consolidation(replay)
    verify_batch(batch, [], replay)
    assert batch.merkle_root == "sha256:" + sha256(b"").hexdigest()
    with pytest.raises(IntegrityError):
        verify_batch(batch, mixed_events(1), replay)
    with pytest.raises(IntegrityError):
        verify_batch(batch, [], replay[:2])


def test_only_a_consolidation_goes_without_events_and_only_it_says_what_it_is_for():
    update, fold = seal(PARENT, mixed_events(1)), consolidation([])
    assert "purpose" not in update.model_dump()  # what was sealed before has the digest it had
    for batch in (update, fold):
        assert SealedBatch.model_validate_json(batch.model_dump_json()) == batch
    with pytest.raises(ValidationError, match="events in an update"):
        SealedBatch.model_validate({**update.model_dump(), "entries": ()})
    with pytest.raises(ValidationError, match="none in a consolidation"):
        SealedBatch.model_validate({**update.model_dump(), "purpose": "consolidation"})
