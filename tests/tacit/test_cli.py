"""The command line: clear refusals, exit codes, and nothing heavy for client verbs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tacit.command_line import tacit

TACIT = Path(sys.executable).with_name("tacit")


def test_the_command_is_installed(tmp_path: Path) -> None:
    command = [TACIT, "status", "--home", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "an API key; got none" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_show_prints_the_whole_tree(tmp_path: Path) -> None:
    done = tacit("config", "show", "--set", "loop.min_events=9", home=tmp_path)
    assert json.loads(done.stdout)["loop"]["min_events"] == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "an API key; got none"),
        (["status", "--key", "k", "--url", "http://127.0.0.1:9"], "`tacit up` starts one"),
        (["config", "show", "--set", "a.b=c"], "the name of a setting"),
        (["approve", "c-1", "-m", "x"], "an API key"),
        (["send", "--interaction", "i", "--subject", "u", "--key", "k"], "exactly one of"),
        (
            ["send", "--interaction", "i", "--subject", "u", "--key", "k", "--outcome", "nan"],
            "valid feedback",
        ),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, words: list[str], message: str) -> None:
    done = tacit(*words, home=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_help_names_the_settings_file(tmp_path: Path) -> None:
    # In square brackets the name would be taken for markup, and left out.
    assert "tacit.toml" in tacit("up", "--help", home=tmp_path).stdout


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = tacit("keys", "create", "shop", "--scope", "send", "--source", "shop", home=tmp_path)
    assert made.stdout.startswith("tacit.")
    again = tacit("keys", "create", "shop", "--scope", "send", home=tmp_path)
    assert "a new key name; got shop" in again.stderr
    assert "shop" in tacit("keys", "list", home=tmp_path).stdout
    assert tacit("keys", "revoke", "shop", home=tmp_path).returncode == 0
    assert "shop" not in tacit("keys", "list", home=tmp_path).stdout


def test_client_verbs_load_no_service_package() -> None:
    code = (
        "import sys, tacit.cli\n"
        "heavy = {'torch', 'ray', 'trl', 'transformers', 'mlflow', 'sqlalchemy', 'fastapi'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
