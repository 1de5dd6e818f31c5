"""The world of the benchmark: 100 intents and refusals are old, 50 intents arrive in deployment.

CLINC150 (Larson et al. 2019) with its out-of-scope requests, whose right answer is a refusal; where
the data set is missing, the demo's helpdesk, which generates its utterances.
"""

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from benchmarks.learning.scale import Scale
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from tacit.demo.base import BaseRecipe, make_base, recipe_for
from tacit.demo.clinc import NUM_NEW, NUM_OLD, clinc_world
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.world import Utterance, World
from tacit.start import base_cache

DATA = Path(__file__).parents[3] / "shared" / "data" / "clinc150"
"""Beside the checkout; ``TACIT_CLINC150`` names another folder."""
REFUSAL = "out of scope"


def data_folder() -> Path | None:
    """Where CLINC150 is; None where it is missing."""
    folder = Path(os.environ.get("TACIT_CLINC150", DATA))
    return folder if (folder / "data_full.json").is_file() else None


def learning_world(seed: int, num_old: int = NUM_OLD, num_new: int = NUM_NEW) -> World:
    """The world of one seed, which draws the intents that are old and those that are new."""
    folder = data_folder()
    if folder is None:
        return helpdesk_world(seed=seed)
    path = folder / "data_full.json"
    return with_refusals(clinc_world(path, seed=seed, num_old=num_old, num_new=num_new), path)


def with_refusals(world: World, path: Path) -> World:
    """``world`` with the out-of-scope requests: those to train on are old, those to test measured.

    No text that the world measures is trained on.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    safety = _refused(data["oos_test"], {u.text for _, part in world.parts() for u in part})
    measured = {u.text for u in (*world.old_validation, *world.old_test, *world.new_test, *safety)}
    taught = _refused([*data["oos_train"], *data["oos_val"]], measured)
    return replace(world, old_train=(*world.old_train, *taught), safety=safety)


def _refused(rows: list[list[str]], taken: Collection[str]) -> tuple[Utterance, ...]:
    texts = dict.fromkeys(text for text, _ in rows if text not in taken)
    return tuple(Utterance(text, REFUSAL) for text in texts)


def neighbours(world: World, answers: Collection[str]) -> frozenset[str]:
    """Old answers from the domains of ``answers``; all of them where there are no domains."""
    old = {u.answer for u in world.old_test}
    folder = data_folder()
    if world.name == "helpdesk" or folder is None:
        return frozenset(old)
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    named = [{intent.replace("_", " ") for intent in intents} for intents in domains.values()]
    return frozenset(old & set().union(*(domain for domain in named if domain & set(answers))))


def base_policy(world: World, store: CheckpointStore, *, seed: int, scale: Scale) -> Digest:
    """The policy taught the old world, in ``store``; made once, then from the cache."""
    return make_base(world, store, cache=base_cache(), seed=seed, recipe=base_recipe(world, scale))


def base_recipe(world: World, scale: Scale) -> BaseRecipe:
    """The demo's recipe for the helpdesk, that of ``scale`` for CLINC150."""
    return recipe_for(world) if world.name == "helpdesk" else scale.recipe
