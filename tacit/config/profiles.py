"""Profiles: settings that belong together, weaker than file, environment and command line.

``cluster`` is for more than one machine: Kafka, PostgreSQL, and the Ray cluster at RAY_ADDRESS.
``small`` is for policies of a few million weights that have whole classes of answers to learn: all
weights move, most of an update is rehearsal, and every fifth starts anew from the frozen anchor
(docs/results/learning has the evidence). They get it unasked; see ``tacit.config.tree.suited``.
"""

import os
from typing import Any

from tacit.errors import ConfigError

PROFILES: dict[str, dict[str, Any]] = {
    "cluster": {
        "log_json": True,
        "collector": {"stream": "kafka", "host": "0.0.0.0"},
        "deploy": {"host": "0.0.0.0"},
    },
    "small": {
        "trainer": {
            "full_fine_tuning": True,
            "learning_rate": 1e-3,
            "batch_size": 64,
            "kl_weight": 0.0,
            "replay": {"share": 0.8},
            "rebuild": {
                "every": 5,
                "num_epochs": 5,
                "learning_rate": 2e-3,
                "interpolation_alphas": [0.5, 0.75, 0.9, 0.95],
            },
        }
    },
}


SMALL_WEIGHTS = 10_000_000
"""Below so many weights a policy is small. The evidence is of 2.7 million."""


def profile_for(num_weights: int) -> str | None:
    """The profile that a policy of ``num_weights`` weights, 0 if unknown, gets unasked."""
    return "small" if 0 < num_weights < SMALL_WEIGHTS else None


def profile_values(name: str) -> dict[str, Any]:
    """The settings of the profile ``name``. Raises ConfigError for a name that is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ConfigError(f"a profile: {', '.join(PROFILES)}", got=name) from None


def merged(weak: dict[str, Any], strong: dict[str, Any]) -> dict[str, Any]:
    """``weak`` with all that stands in ``strong`` put over it, section by section."""
    tree = dict(weak)
    for key, value in strong.items():
        below = tree.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merged(below, value)
        tree[key] = value
    return tree


def require_backends(profile: str | None, *, database_url: str | None, stream: str) -> None:
    """Refuse to run ``cluster`` on what one machine keeps for itself.

    Raises ConfigError that names all that is missing.
    """
    if profile != "cluster":
        return
    missing = {
        "TACIT_DATABASE_URL=postgresql://…": not (database_url or "").startswith("postgresql"),
        "RAY_ADDRESS=host:port": not os.environ.get("RAY_ADDRESS"),
        "collector.stream=kafka": stream != "kafka",
    }
    named = ", ".join(name for name, absent in missing.items() if absent)
    if named:
        raise ConfigError(
            "the backends of profile cluster",
            got=f"no {named}",
            mend="docs/how-to/from-laptop-to-cluster.md has every step.",
        )
