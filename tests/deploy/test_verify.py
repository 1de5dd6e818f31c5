"""Nothing that was altered after its approval is loaded, whichever byte it is."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import check_bundle, read_bundle, verify_bundle
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Release, ReleaseBundle
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.signing import Signer, Verifier
from tests import builders
from tests.deploy.scenes import Line, genesis, line

MINUTE = timedelta(minutes=1)


@pytest.fixture
def scene(sqlite_database: Database, store: CheckpointStore, tmp_path: Path) -> Line:
    return line(sqlite_database, store, tmp_path)


@pytest.fixture
def promoted(scene: Line) -> Release:
    scene.first()
    return scene.promote(scene.evidence(1, valid_until=builders.MOMENT + MINUTE))


def check(scene: Line, bundle: ReleaseBundle, verifier: Verifier | None = None) -> Release:
    return verify_bundle(
        bundle, policy="default", store=scene.store, verifier=verifier or scene.signer
    )


def changed(bundle: ReleaseBundle, **fields: Any) -> ReleaseBundle:
    return bundle.model_copy(update=fields)


def test_what_the_desk_stored_verifies(scene: Line, promoted: Release) -> None:
    first = scene.desk.history("default")[-1]
    assert check(scene, scene.bundle(first)) == first
    assert check(scene, scene.bundle(promoted)) == promoted


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_altered_byte_of_the_checkpoint_is_found(
    scene: Line, promoted: Release, name: str
) -> None:
    path = scene.store.path(promoted.weights) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{name} of {promoted.weights}"):
        check(scene, scene.bundle(promoted))


def test_a_missing_or_a_smuggled_file_is_found(scene: Line, promoted: Release) -> None:
    folder = scene.store.path(promoted.weights)
    (folder / "modeling_evil.py").write_text("import os")
    with pytest.raises(IntegrityError, match="only the files"):
        check(scene, scene.bundle(promoted))
    (folder / "modeling_evil.py").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(IntegrityError, match=r"config\.json .* got no such file"):
        check(scene, scene.bundle(promoted))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(IntegrityError, match="in the store; got no such folder"):
        check(scene, scene.bundle(promoted))


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("report", '"num_items":1000', '"num_items":1001'),
        ("report", '"errors":[]', '"errors":["x"]'),
        ("batch", '"weight":1.0', '"weight":0.9'),
        ("batch", '"policy":"default"', '"policy":"defaulu"'),
        ("candidate", '"seed":0', '"seed":1'),
    ],
)
def test_an_altered_byte_of_the_evidence_is_found(
    scene: Line, promoted: Release, part: str, old: str, new: str
) -> None:
    bundle = scene.bundle(promoted)
    text = getattr(bundle, part).model_dump_json()
    assert old in text
    altered = type(getattr(bundle, part)).model_validate_json(text.replace(old, new, 1))
    with pytest.raises(IntegrityError, match=f"a {part} with digest sha256:.* got sha256:"):
        check(scene, changed(bundle, **{part: altered}))


@pytest.mark.parametrize("which", ["release", "decision"])
def test_an_altered_byte_of_an_envelope_is_found_wherever_it_is(
    scene: Line, promoted: Release, which: str
) -> None:
    bundle = scene.bundle(promoted)
    envelope = getattr(bundle, f"{which}_envelope")
    fields = json.loads(envelope)
    spots = [envelope.index(fields["payload"]), envelope.index(fields["signatures"][0]["sig"])]
    for start in spots:
        for at in range(start, start + 40, 7):
            other = "A" if envelope[at] not in "Aa" else "b"
            forged = envelope[:at] + other + envelope[at + 1 :]
            with pytest.raises(IntegrityError, match=f"around the {which}"):
                check(scene, changed(bundle, **{f"{which}_envelope": forged}))


@pytest.mark.parametrize("part", ["candidate", "report", "batch"])
def test_missing_evidence_is_named(scene: Line, promoted: Release, part: str) -> None:
    bundle = scene.bundle(promoted)
    with pytest.raises(IntegrityError, match="candidate, report and batch of a gate decision"):
        check(scene, changed(bundle, **{part: None}))


def test_envelopes_of_two_releases_cannot_be_swapped(scene: Line, promoted: Release) -> None:
    ours = scene.bundle(promoted)
    other = scene.bundle(scene.promote(scene.evidence(2)))
    for field in ("release_envelope", "decision_envelope"):
        with pytest.raises(IntegrityError, match="stands on decision"):
            check(scene, changed(ours, **{field: getattr(other, field)}))
    with pytest.raises(IntegrityError, match="a signed release; got"):
        check(scene, changed(ours, release_envelope=ours.decision_envelope))
    with pytest.raises(IntegrityError, match="a signed decision; got"):
        check(scene, changed(ours, decision_envelope=ours.release_envelope))


def test_another_key_does_not_open_it(scene: Line, promoted: Release, tmp_path: Path) -> None:
    stranger = Signer.load_or_create(tmp_path / "stranger")
    with pytest.raises(IntegrityError, match="around the release"):
        check(scene, scene.bundle(promoted), stranger)


def test_it_is_good_for_its_own_policy_line_only(scene: Line, promoted: Release) -> None:
    with pytest.raises(IntegrityError, match="policy line other; got default"):
        check_bundle(scene.bundle(promoted), policy="other", verifier=scene.signer)


def _resealed(scene: Line, bundle: ReleaseBundle, release: Release) -> ReleaseBundle:
    """As a key holder who makes mistakes would sign it."""
    return changed(bundle, release_envelope=scene.signer.seal(release.model_dump(mode="json")))


def test_even_a_signed_release_must_fit_its_approval(scene: Line, promoted: Release) -> None:
    bundle = scene.bundle(promoted)
    late = promoted.model_copy(update={"released_at": builders.MOMENT + 2 * MINUTE})
    with pytest.raises(IntegrityError, match="before its approval expired"):
        check(scene, _resealed(scene, bundle, late))
    other = promoted.model_copy(update={"weights": builders.digest("other")})
    with pytest.raises(IntegrityError, match="a release of the approved weights"):
        check(scene, _resealed(scene, bundle, other))


def test_an_approval_by_genesis_is_good_at_the_start_and_for_going_back(
    scene: Line, promoted: Release
) -> None:
    decision = genesis(promoted.weights)
    later = promoted.model_copy(update={"decision_digest": decision.digest()})
    bundle = changed(
        _resealed(scene, scene.bundle(promoted), later),
        decision_envelope=scene.seal(decision),
        candidate=None,
        report=None,
        batch=None,
    )
    with pytest.raises(IntegrityError, match="genesis decision only at sequence 0; got 1"):
        check(scene, bundle)
    with pytest.raises(IntegrityError, match="evidence of a genesis release: none; got batch"):
        check(scene, changed(bundle, batch=builders.batch()))
    back = scene.rollback()
    assert back.sequence == 2
    assert check(scene, scene.bundle(back)) == back


def test_going_back_is_good_after_the_approval_expired(scene: Line, promoted: Release) -> None:
    scene.now += 5 * MINUTE
    scene.promote(scene.evidence(2))
    back = scene.rollback()
    assert back.weights == promoted.weights
    assert check(scene, scene.bundle(back)) == back


def _report_on_other_weights(bundle: ReleaseBundle) -> dict[str, Any]:
    assert bundle.report is not None
    return {"report": bundle.report.model_copy(update={"weights": builders.digest("o")})}


def _report_on_another_batch(bundle: ReleaseBundle) -> dict[str, Any]:
    assert bundle.report is not None
    return {"report": bundle.report.model_copy(update={"batch_digest": builders.digest("o")})}


def _report_on_another_candidate(bundle: ReleaseBundle) -> dict[str, Any]:
    assert bundle.report is not None
    return {"report": bundle.report.model_copy(update={"candidate_digest": builders.digest("o")})}


def _candidate_of_another_batch(bundle: ReleaseBundle) -> dict[str, Any]:
    assert bundle.candidate is not None
    return {"candidate": bundle.candidate.model_copy(update={"batch_digest": builders.digest("o")})}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_report_on_other_weights, "a report on weights"),
        (_report_on_another_batch, "a report that names batch"),
        (_report_on_another_candidate, "a report on candidate"),
        (_candidate_of_another_batch, "a candidate trained on batch"),
    ],
)
def test_even_approved_evidence_must_be_about_one_thing(
    scene: Line,
    promoted: Release,
    change: Callable[[ReleaseBundle], dict[str, Any]],
    says: str,
) -> None:
    bundle = scene.bundle(promoted)
    bundle = changed(bundle, **change(bundle))
    assert bundle.candidate is not None
    assert bundle.report is not None
    decision = builders.decision(
        bundle.candidate,
        report_digest=bundle.report.digest(),
        batch_digest=bundle.batch.digest() if bundle.batch else None,
    )
    release = promoted.model_copy(update={"decision_digest": decision.digest()})
    bundle = changed(_resealed(scene, bundle, release), decision_envelope=scene.seal(decision))
    with pytest.raises(IntegrityError, match=says):
        check(scene, bundle)


@pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '{"schema_version": 2}'])
def test_what_is_not_a_bundle_is_an_integrity_error(text: str) -> None:
    with pytest.raises(IntegrityError, match="a release bundle; got"):
        read_bundle(text)
