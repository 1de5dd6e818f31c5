"""Keys, gate policy, suites, reward function and model."""

from pathlib import Path

import pytest

from tacit.config import load_settings
from tacit.doctor.findings import Status
from tacit.doctor.gate import check_gate
from tacit.doctor.keys import check_keys
from tacit.doctor.reward import check_model, check_reward
from tacit.errors import ConfigError
from tacit.secrets_file import MasterSecret
from tacit.signing import Signer
from tests.tacit.doctor.patients import findings, only, only_ok, settings_in, write_suite


def test_keys_that_others_read_and_keys_that_are_broken(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert [f.status for f in findings(check_keys, settings)] == [Status.OK]
    Signer.load_or_create(settings.keys_path)
    MasterSecret.load_or_create(settings.keys_path)
    assert [f.status for f in findings(check_keys, settings)] == [Status.OK]

    signing, public = settings.keys_path / "signing.pem", settings.keys_path / "signing.pub"
    signing.chmod(0o640)
    assert "chmod 600" in only(findings(check_keys, settings), Status.FAIL).mend
    signing.chmod(0o600)
    public.write_text("another key")
    assert "does not belong" in only(findings(check_keys, settings), Status.WARN).found
    signing.write_text("half a key")
    assert "backup" in only(findings(check_keys, settings), Status.FAIL).mend
    signing.unlink()
    assert "alone" in only(findings(check_keys, settings), Status.FAIL).found


def test_a_signing_key_in_a_folder_of_its_own(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, f"gatekeeper.signing_path={tmp_path}/signing")
    place = settings.signing_path
    assert [f.status for f in findings(check_keys, settings)] == [Status.OK]
    Signer.load_or_create(place)
    assert "signs" in only_ok(findings(check_keys, settings)).found
    (place / "signing.pem").unlink()
    assert "Serving needs no more" in only(findings(check_keys, settings), Status.WARN).mend
    (place / "signing.pem").mkdir(mode=0o700)
    assert "cannot be used" in only(findings(check_keys, settings), Status.FAIL).found
    (tmp_path / "file").write_text("")
    nowhere = settings_in(tmp_path, f"gatekeeper.signing_path={tmp_path}/file/signing")
    assert "tacit keys signing" in only(findings(check_keys, nowhere), Status.FAIL).mend


def test_a_mounted_secret_may_be_read_by_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    Signer.load_or_create(settings.keys_path)
    signing = settings.keys_path / "signing.pem"
    signing.chmod(0o440)
    assert "chmod 600" in only(findings(check_keys, settings), Status.FAIL).mend
    monkeypatch.setattr("os.geteuid", lambda: signing.stat().st_uid + 1)
    assert "signs" in only_ok(findings(check_keys, settings)).found
    signing.chmod(0o444)
    assert "others can reach it" in only(findings(check_keys, settings), Status.FAIL).found


def test_a_webhook_whose_variable_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text('[gatekeeper.webhooks.chat]\nurl_variable = "CHAT_URL"\n')
    monkeypatch.delenv("CHAT_URL", raising=False)
    settings = load_settings(file, home=tmp_path)
    assert "CHAT_URL" in only(findings(check_keys, settings), Status.FAIL).mend


def test_suites_too_small_for_the_policy(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, "model=a/b")
    missing = only(findings(check_gate, settings), Status.FAIL)
    assert "asks for 20 items of regression; there are 0" in missing.found

    # The shipped policy: 3 points at 0.001 take 227 items, 2 points at 0.01 take 228.
    for items, needed in ((227, ["228"]), (226, ["227", "228"]), (228, [])):
        write_suite(settings.suites_path, items=items)
        short = [f for f in findings(check_gate, settings) if f.status is Status.WARN]
        assert [f.found.split(" takes ")[1].split()[0] for f in short] == needed
    write_suite(settings.suites_path, items=228, cluster="c")
    assert "worth 114" in findings(check_gate, settings)[-1].found


def test_a_gate_policy_and_a_suite_that_cannot_be_read(tmp_path: Path) -> None:
    policy = tmp_path / "gate.yaml"
    policy.write_text("version: 2\n")
    bad = settings_in(tmp_path, f"gatekeeper.gate_policy_path={policy}")
    assert "gate.yaml:1" in only(findings(check_gate, bad), Status.FAIL).found

    settings = settings_in(tmp_path)
    write_suite(settings.suites_path, items=300)
    (settings.suites_path / "t.yaml").write_text("name: t\n")
    assert "t.yaml: kind" in only(findings(check_gate, settings), Status.FAIL).found


def test_a_reward_function_that_cannot_be_imported(tmp_path: Path) -> None:
    bad = settings_in(tmp_path, "trainer.reward.function=no.such:thing")
    with pytest.raises(ConfigError, match=r"no\.such"):
        list(check_reward(bad))
    known = "trainer.reward.function=trainer.methods.reward:matches_known_answer"
    assert [f.status for f in findings(check_reward, settings_in(tmp_path, known))] == [Status.OK]


def test_a_model_that_is_no_folder(tmp_path: Path) -> None:
    gone = settings_in(tmp_path, f"model={tmp_path}/gone")
    assert "is no folder" in only(findings(check_model, gone), Status.FAIL).found
    empty = settings_in(tmp_path, f"model={tmp_path}")
    assert "config.json" in only(findings(check_model, empty), Status.FAIL).found
