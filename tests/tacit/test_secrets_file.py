"""Secrets kept in files, and the keys that are derived from the master secret."""

import stat
from pathlib import Path

import pytest

from tacit.errors import (
    ConfigError,
)
from tacit.secrets_file import MasterSecret, load_or_create_secret


def test_secret_file_is_made_once_private_and_never_taken_empty(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "some.secret"
    secret = load_or_create_secret(path)
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["some.secret"]
    for text in ("", "\n", "short"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="at least 32"):
            load_or_create_secret(path)


def test_derived_keys_differ_by_purpose_and_by_master(tmp_path: Path) -> None:
    master = MasterSecret.load_or_create(tmp_path)
    again, other = MasterSecret.load_or_create(tmp_path), MasterSecret("x" * 43)
    derived = [master.derive("a"), master.derive("b"), other.derive("a")]
    assert len(set(derived)) == 3
    assert {len(key) for key in derived} == {32}
    assert again.derive("a") == derived[0]
