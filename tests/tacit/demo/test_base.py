"""The base policy: same inputs, same weights; trained once; taught what it is asked."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from tacit.checkpoints import CheckpointStore
from tacit.demo import base
from tacit.demo.base import BaseRecipe, make_base, recipe_for, reliable, training_key
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import Utterance, World, prompt
from tacit.errors import TrainingError
from tacit.policies import load_policy

TOYS = tuple(
    Utterance(f"{opener} {word} {number}", f"{queue}: {word}")
    for opener in ("please", "hello")
    for word, queue in (("refund", "billing"), ("parcel", "shipping"), ("login", "support"))
    for number in range(8)
)
MICRO = World("micro", TOYS, TOYS[:4], TOYS[:4], new_stream=TOYS[:1], new_test=TOYS[:1])
FEW_STEPS = BaseRecipe(
    hidden_size=32, num_layers=1, num_heads=2, vocab_size=320, num_epochs=2, batch_size=16
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on matrices this small wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_same_world_and_seed_make_the_same_weights(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "store")
    digests = [
        make_base(MICRO, store, cache=tmp_path / name, seed=seed, recipe=FEW_STEPS)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    ]

    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_the_second_time_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []
    first = make_base(
        MICRO,
        CheckpointStore(tmp_path / "store"),
        cache=tmp_path / "cache",
        recipe=FEW_STEPS,
        on_progress=lambda *step: steps.append(step),
    )
    assert steps == [(n, 6) for n in range(1, 7)]

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(base, "train_base", never)
    elsewhere = CheckpointStore(tmp_path / "elsewhere")

    assert make_base(MICRO, elsewhere, cache=tmp_path / "cache", recipe=FEW_STEPS) == first
    elsewhere.verify(first)


def test_another_world_recipe_or_seed_has_another_key() -> None:
    other_world = World("micro", TOYS[1:], (), (), new_stream=(), new_test=())
    keys = {
        training_key(MICRO, FEW_STEPS, seed=0),
        training_key(other_world, FEW_STEPS, seed=0),
        training_key(MICRO, BaseRecipe(), seed=0),
        training_key(MICRO, FEW_STEPS, seed=1),
    }

    assert len(keys) == 4


def test_a_training_that_breaks_off_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_base(
            MICRO,
            CheckpointStore(tmp_path / "store"),
            cache=tmp_path / "cache",
            recipe=FEW_STEPS,
            on_progress=stop,
        )

    assert not list((tmp_path / "cache").glob("*"))


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    runaway = BaseRecipe(**{**vars(FEW_STEPS), "learning_rate": 1e30, "num_epochs": 8})

    with pytest.raises(TrainingError, match="finite loss"):
        base.train_base(MICRO, runaway)


def test_it_learns_what_it_is_taught_and_says_where_it_is_sure(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    recipe = BaseRecipe(**{**vars(FEW_STEPS), "num_epochs": 40, "learning_rate": 1e-2})
    digest = make_base(MICRO, store, cache=tmp_path / "cache", recipe=recipe)

    answers = load_policy(store, digest).generate([prompt(u) for u in TOYS], max_new_tokens=16)
    wrong = Utterance(TOYS[0].text, "not what it says")

    assert [a.text for a in answers] == [u.answer for u in TOYS]
    assert reliable(store, digest, TOYS) == {u.text for u in TOYS}
    assert reliable(store, digest, [wrong]) == frozenset()
    assert reliable(store, digest, TOYS, min_probability=1.1) == frozenset()


def test_policies_have_one_to_three_million_parameters() -> None:
    world = helpdesk_world()
    syllables = ["".join(letters) for letters in product("bdfgklmnprst", "aeiou", "bdfgklmnprst")]
    many_words = tuple(Utterance(f"{a}{b}", "x") for a, b in product(syllables, syllables[:12])) * 2

    small, _ = base.untrained(world, recipe_for(world))
    large, tokenizer = base.untrained(World("real", many_words, *[()] * 4), base.REAL_RECIPE)

    assert len(tokenizer) == base.REAL_RECIPE.vocab_size
    assert 1_000_000 <= small.num_parameters() < large.num_parameters() <= 3_000_000
