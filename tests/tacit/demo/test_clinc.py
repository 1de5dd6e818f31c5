"""CLINC150 as a world: which intents are old, and clear errors on files of another form."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tacit.demo.clinc import clinc_world
from tacit.demo.world import World
from tacit.errors import ConfigError
from tests.tacit.demo.clinc_data import REAL_CLINC, made_up, write


def answers(part: tuple[Any, ...]) -> set[str]:
    return {utterance.answer for utterance in part}


def small_world(folder: Path, data: Any) -> World:
    return clinc_world(write(folder, data), num_old=4, num_new=2)


def test_old_and_new_intents_split_the_data_set(tmp_path: Path) -> None:
    world = small_world(tmp_path, made_up(6))

    old, new = answers(world.old_train), answers(world.new_stream)
    assert old | new == {f"intent {n}" for n in range(6)}
    assert (len(old), len(new)) == (4, 2)
    assert not old & new
    assert answers(world.old_validation) == answers(world.old_test) == old
    assert answers(world.new_test) == new
    assert all(u.text.startswith("train ") for u in world.new_stream + world.old_train)
    assert all(u.text.startswith("test ") for u in world.new_test + world.old_test)
    assert all(u.text.startswith("val ") for u in world.old_validation)


def test_a_text_in_two_splits_is_measured_and_never_trained(tmp_path: Path) -> None:
    data = made_up(6)
    data["train"].extend(data["test"])

    world = small_world(tmp_path, data)

    assert all(u.text.startswith("train ") for u in world.new_stream + world.old_train)
    assert len(world.old_test) == 16


def test_the_stream_mixes_intents(tmp_path: Path) -> None:
    stream = [u.answer for u in small_world(tmp_path, made_up(6, per_split=20)).new_stream]

    assert sum(a != b for a, b in pairwise(stream)) > 5


def test_the_same_file_makes_the_same_world(tmp_path: Path) -> None:
    assert small_world(tmp_path, made_up()).digest == small_world(tmp_path, made_up()).digest


@pytest.mark.parametrize(
    ("data", "got"),
    [
        ("{not json", "JSON"),
        ([1, 2], "list"),
        ({"train": [["hi", "greet"]]}, "no such split"),
        (made_up() | {"val": []}, "val"),
        (made_up() | {"val": {"hi": "greet"}}, "val"),
        (made_up() | {"test": [["hi"]]}, r"test\[0\]"),
        (made_up() | {"test": [["hi", 3]]}, r"test\[0\]"),
        (made_up() | {"test": [["hi", " "]]}, r"test\[0\]"),
        (made_up(5), "at least 6 intents"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, data: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=got) as caught:
        small_world(tmp_path, data)

    assert "data_full.json" in caught.value.mend


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "data_full.json"
    binary.write_bytes(b"\xff\xfe\x00")

    for path in (tmp_path / "nowhere.json", binary):
        with pytest.raises(ConfigError, match="expected"):
            clinc_world(path)


@pytest.mark.skipif(not REAL_CLINC.exists(), reason="CLINC150's data_full.json is not here")
def test_the_real_data_set() -> None:
    world = clinc_world(REAL_CLINC)

    assert (len(answers(world.old_train)), len(answers(world.new_stream))) == (100, 50)
    assert 9_900 <= len(world.old_train) <= 10_000
    assert 4_900 <= len(world.new_stream) <= 5_000
    assert (len(world.old_test), len(world.new_test)) == (3_000, 1_500)
    texts = [u.text for _, part in world.parts() for u in part]
    assert len(set(texts)) == len(texts)
