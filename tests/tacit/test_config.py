"""Settings: sources in order, errors that say what to do, no secret printed."""

from pathlib import Path

import pytest

from tacit.config import load_settings, public_dump, settings_from_json, settings_to_json, suited
from tacit.errors import ConfigError


def test_command_line_beats_environment_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text("[loop]\nmin_events = 5\nmax_events = 6\n[deploy]\nport = 7\n")
    assert load_settings(file).loop.min_events == 5
    monkeypatch.setenv("TACIT_LOOP__MIN_EVENTS", "4")
    assert load_settings(file).loop.min_events == 4
    merged = load_settings(file, overrides=["loop.min_events=3"])
    assert (merged.loop.min_events, merged.loop.max_events, merged.deploy.port) == (3, 6, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.min_events=0", "greater than or equal to 1"),
        ("loop.min_event=1", "loop.min_event"),
        ("loop.min_events", "--set a.b=c"),
        ("loop.max_events=1", "loop.max_events >= loop.min_events"),
        ("trainer.replay.share=nan", "trainer.replay.share"),
        ("policy=Not A Name", "policy"),
        ("trainer.max_length=1", "trainer.max_length"),
        ("trainer.sparse.fraction=0", "trainer.sparse.fraction"),
        ("trainer.distillation.teacher=grandparent", "trainer.distillation.teacher"),
    ],
)
def test_bad_override_names_the_setting(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(overrides=[override])


@pytest.mark.parametrize("text", ["loop = [", "[loop]\nnope = 1\n", "\x00"])
def test_bad_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="expected"):
        load_settings(file)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "no.toml")


def test_what_is_printed_holds_no_password() -> None:
    settings = load_settings(overrides=["database_url=postgresql://ada:s3cret@db/tacit"])
    assert public_dump(settings)["database_url"] == "postgresql://ada:***@db/tacit"


def test_settings_survive_the_way_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(overrides=["loop.min_events=9"])
    monkeypatch.setenv("TACIT_LOOP__MIN_EVENTS", "4")
    assert settings_from_json(settings_to_json(settings)) == settings


def test_shares_of_an_update_are_set_in_one_line() -> None:
    override = "trainer.interpolation_alphas=0.5,1"
    assert load_settings(overrides=[override]).trainer.interpolation_alphas == (0.5, 1.0)


@pytest.mark.parametrize("alphas", ["1,0.5", "0,1", "0.5,1.5", "0.5,0.5", ""])
def test_shares_of_an_update_must_rise_above_nothing(alphas: str) -> None:
    with pytest.raises(ConfigError, match="interpolation_alphas"):
        load_settings(overrides=[f"trainer.interpolation_alphas={alphas}"])


@pytest.mark.parametrize(
    "add_on",
    ["trainer.ewc.weight=1", "trainer.distillation.weight=1", "trainer.sparse.fraction=0.5"],
)
def test_add_ons_of_the_mixed_objective_are_refused_with_another_method(add_on: str) -> None:
    name = add_on.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"trainer\.method=mixed with {name}; got dpo"):
        load_settings(overrides=["trainer.method=dpo", add_on])
    assert load_settings(overrides=[add_on]).trainer.method == "mixed"


def test_ewc_without_replay_has_nothing_to_protect() -> None:
    with pytest.raises(ConfigError, match=r"replay\.share > 0 with trainer\.ewc"):
        load_settings(overrides=["trainer.ewc.weight=1", "trainer.replay.share=0"])


def test_the_profile_of_small_policies_trains_all_weights_and_rehearses_much() -> None:
    chosen = load_settings(profile="small", overrides=["trainer.num_epochs=1"]).trainer
    assert chosen.full_fine_tuning
    assert (chosen.replay.share, chosen.num_epochs) == (0.8, 1)
    assert (chosen.rebuild.every, load_settings().trainer.rebuild.every) == (5, 0)
    assert chosen.replay.on_policy_share == 0.5
    assert chosen.of_rebuild().interpolation_alphas == (0.5, 0.75, 0.9, 0.95)


def test_a_rebuild_may_have_epochs_a_rate_and_shares_of_its_own() -> None:
    usual = load_settings(overrides=["trainer.num_epochs=2"]).trainer
    assert usual.of_rebuild() == usual
    own = ["num_epochs=7", "learning_rate=0.5", "interpolation_alphas=0.9,1"]
    found = load_settings(overrides=[f"trainer.rebuild.{each}" for each in own]).trainer
    assert found.of_rebuild().num_epochs == 7
    assert found.of_rebuild().learning_rate == 0.5
    assert found.of_rebuild().interpolation_alphas == (0.9, 1.0)
    assert found.interpolation_alphas == usual.interpolation_alphas


def test_a_rebuild_is_due_when_so_many_updates_came_since_the_last() -> None:
    def due(every: int) -> list[int]:
        chosen = load_settings(overrides=[f"trainer.rebuild.every={every}"]).trainer.rebuild
        return [number for number in range(7) if chosen.is_due(number)]

    assert due(0) == []
    assert due(1) == list(range(7))
    assert due(5) == [4, 5, 6]


def test_a_small_policy_gets_what_suits_it_where_nobody_said_otherwise() -> None:
    by_size = suited(load_settings(), 2_700_000).trainer
    assert by_size == load_settings(profile="small").trainer
    assert suited(load_settings(), 10_000_000) == load_settings()


def test_what_was_set_stays_also_at_its_default_and_in_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text("[trainer]\nkl_weight = 0.1\n")
    monkeypatch.setenv("TACIT_TRAINER__NUM_EPOCHS", "3")
    settings = load_settings(file, overrides=["trainer.replay.share=0.1"])
    there = settings_from_json(settings_to_json(settings))
    assert there == settings
    for found in (suited(settings, 1_000), suited(there, 1_000)):
        chosen = found.trainer
        assert (chosen.kl_weight, chosen.replay.share, chosen.num_epochs) == (0.1, 0.1, 3)
        assert (chosen.full_fine_tuning, chosen.learning_rate) == (True, 1e-3)


@pytest.mark.parametrize("override", ["trainer.full_fine_tuning=false", "trainer.method=dpo"])
def test_who_chose_how_to_train_keeps_the_defaults(override: str) -> None:
    settings = load_settings(overrides=[override])
    assert suited(settings, 1_000) == settings


def test_file_and_command_line_beat_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "tacit.toml"
    file.write_text('[collector]\nhost = "10.0.0.1"\n')
    settings = load_settings(file, profile="cluster", overrides=["deploy.host=10.0.0.2"])
    assert settings.collector.stream == "kafka"
    assert (settings.collector.host, settings.deploy.host) == ("10.0.0.1", "10.0.0.2")
    with pytest.raises(ConfigError, match="a profile: cluster, small; got moon"):
        load_settings(profile="moon")
