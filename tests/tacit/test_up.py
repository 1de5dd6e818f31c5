"""``tacit up`` starts nothing where it could not serve, or where something runs already."""

import socket
import threading
from pathlib import Path

import pytest
from rich.console import Console

import tacit.up
from tacit.config import Settings, load_settings
from tacit.errors import ConfigError
from tacit.ports import free_port
from tacit.up import run_up


class StartedError(Exception):
    """Nothing was in the way."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    def start(_: Settings) -> None:
        raise StartedError

    monkeypatch.setattr(tacit.up, "prepare", start)
    monkeypatch.setattr(tacit.up, "PORTS_WAIT_S", 0.0)
    ports = {name: {"port": free_port()} for name in ("collector", "deploy", "tracking")}
    return load_settings(home=tmp_path / "home", **ports)


@pytest.mark.parametrize("part", ["collector", "deploy", "tracking"])
def test_a_port_that_is_taken_is_named_before_anything_starts(
    settings: Settings, part: str
) -> None:
    port = getattr(settings, part).port
    told = pytest.raises(ConfigError, match=rf"{part}.port {port} taken.*`tacit status`")
    with socket.create_server(("127.0.0.1", port)), told:
        run_up(settings, Console())
    with pytest.raises(StartedError):
        run_up(settings, Console())


def test_what_a_killed_service_left_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tacit.up, "PORTS_WAIT_S", 30.0)
    dying = socket.create_server(("127.0.0.1", settings.collector.port))
    end = threading.Timer(0.5, dying.close)
    end.start()
    with pytest.raises(StartedError):
        run_up(settings, Console())
    end.join()


def test_a_model_that_is_not_there_is_told_of_at_once(settings: Settings) -> None:
    lost = settings.model_copy(update={"model": "/no/such/folder"})
    with pytest.raises(ConfigError, match="/no/such/folder is no folder"):
        run_up(lost, Console())
    settings.checkpoints_path.mkdir(parents=True)
    with pytest.raises(StartedError):  # the line began: what it began with is in the store
        run_up(lost, Console())


def test_who_names_no_model_is_told_what_serves(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StartedError):
        run_up(settings, Console())
    assert "the small policy of the demo" in capsys.readouterr().out
