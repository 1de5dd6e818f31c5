"""The command line: clear refusals, exit codes, and nothing heavy for client verbs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TACIT = Path(sys.executable).with_name("tacit")


def _run(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [TACIT, *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, cwd=home)


def test_config_show_prints_the_whole_tree(tmp_path: Path) -> None:
    done = _run("config", "show", "--set", "loop.min_events=9", home=tmp_path)
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
    done = _run(*words, home=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = _run("keys", "create", "shop", "--scope", "send", "--source", "shop", home=tmp_path)
    assert made.stdout.startswith("tacit.")
    again = _run("keys", "create", "shop", "--scope", "send", home=tmp_path)
    assert "a new key name; got shop" in again.stderr
    assert "shop" in _run("keys", "list", home=tmp_path).stdout
    assert _run("keys", "revoke", "shop", home=tmp_path).returncode == 0
    assert "shop" not in _run("keys", "list", home=tmp_path).stdout


def test_client_verbs_load_no_service_package() -> None:
    code = (
        "import sys, tacit.cli\n"
        "heavy = {'torch', 'ray', 'trl', 'transformers', 'mlflow', 'sqlalchemy', 'fastapi'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
