"""What a principal may send, with a key and with a token for one answer."""

from typing import Any

import pytest

from tacit.contracts import Rating, RatingScale
from tacit.errors import (
    NotAllowedError,
)
from tacit.keys import Principal, Scope
from tests.builders import event, interaction

SEND = {Scope.SEND}


def _token(**fields: Any) -> Principal:
    bound: dict[str, Any] = {
        "key_id": "k", "name": "shop", "scopes": frozenset(SEND), "source": "helpdesk",
        "policy": "default", "interaction_id": "i-1", "subject_id": "u-1", "token_id": "t",
    }  # fmt: skip
    return Principal(**{**bound, **fields})


def test_principal_bound_to_source_and_policy_sends_nothing_else() -> None:
    shop = Principal("k", "shop", frozenset(SEND), source="helpdesk", policy="default")
    anyone = Principal("k", "any", frozenset(SEND), source=None, policy=None)
    for sent in (event(), event(subject_id="u-9"), event(episode_id="ep")):
        shop.require_event(sent)
        anyone.require_event(sent)
    for other in (event(source="other"), event(policy="other")):
        anyone.require_event(other)
        with pytest.raises(NotAllowedError, match="'other'"):
            shop.require_event(other)


def test_token_sends_its_own_interaction_and_subject_alone() -> None:
    _token().require_event(event(interaction_id="i-1"))
    for other in (
        event(interaction_id="i-2"),
        event(interaction_id="i-1", subject_id="u-2"),
        event(interaction_id="i-1", source="other"),
        event(interaction_id="i-1", policy="other"),
        event(interaction_id="i-1", interaction=interaction()),
        event(interaction_id="i-1", episode_id="ep"),
        event(episode_id="ep"),
        event(interaction=interaction()),
    ):
        with pytest.raises(NotAllowedError):
            _token().require_event(other)


def test_token_sends_only_the_kinds_it_was_made_for() -> None:
    thumb = Rating(value=1, scale=RatingScale(low=0, high=1))
    token = _token(kinds=frozenset({"rating"}))
    token.require_event(event(interaction_id="i-1", feedback=thumb))
    with pytest.raises(NotAllowedError, match="type rating"):
        token.require_event(event(interaction_id="i-1"))
    with pytest.raises(NotAllowedError, match="feedback token"):
        token.require_key()
    Principal("k", "shop", frozenset(SEND), source=None, policy=None).require_key()
