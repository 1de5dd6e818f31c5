"""``tacit keys``: making, rotating and listing keys on the command line."""

import json
from pathlib import Path

import pytest

from tests.tacit.command_line import tacit


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    limits = ("--rate-limit", "5", "--expires-in-days", "9")
    tacit("keys", "create", "shop", "--scope", "send", *limits, home=tmp_path)
    made = tacit(
        "keys", "create", "crm", "--webhook", "--source", "crm", home=tmp_path
    ).stdout.split()
    assert made[0].startswith("whsec_")
    rotated = tacit("keys", "rotate", "crm", "--grace", "60", home=tmp_path).stdout.split()
    assert rotated[1] == made[1]
    assert rotated[0] != made[0]
    new, old, shop = json.loads(tacit("keys", "list", "--json", home=tmp_path).stdout)
    assert (new["name"], old["name"], shop["name"]) == ("crm", f"crm (rotated {old['key_id']})",
                                                        "shop")  # fmt: skip
    assert (shop["rate_limit_per_s"], shop["scopes"], shop["kind"]) == (5.0, ["send"], "bearer")
    assert shop["expires_at"] > shop["created_at"]
    assert new["path"] == made[1]
    table = tacit("keys", "list", home=tmp_path).stdout
    for word in ("crm", "webhook", "shop", "5/s", "in 8 d", "never", "default"):
        assert word in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "x"], "expected --scope"),
        (["create", "x", "--scope", "fly"], "fly"),
        (["create", "x", "--webhook"], "source"),
        (["create", "x", "--scope", "send", "--expires-in-days", "nan"], "days"),
        (["create", "x", "--scope", "send", "--expires-in-days", "-1"], "future"),
        (["rotate", "nobody"], "nobody"),
    ],
)
def test_refusals_on_the_command_line(tmp_path: Path, words: list[str], message: str) -> None:
    done = tacit("keys", *words, home=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
