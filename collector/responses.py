"""What the SDK reads off an ``openai`` response, without needing that package."""

from typing import Any

from tacit.errors import InvalidInputError


def interaction_id_of(response: Any) -> str | None:
    """The id of an answer, or ``response`` itself if it is one. Raises InvalidInputError."""
    found = response if isinstance(response, str) else getattr(response, "id", None)
    if response is not None and not isinstance(found, str):
        raise InvalidInputError(
            "an openai response or an interaction id", got=type(response).__name__
        )
    return found


def text_of(side: Any) -> str:
    """The text of an answer, or ``side`` itself if it is one. Raises InvalidInputError."""
    if isinstance(side, str):
        return side
    try:
        choice = side.choices[0]
        text = choice.message.content if hasattr(choice, "message") else choice.text
    except (AttributeError, IndexError, TypeError):
        text = None
    if not isinstance(text, str):
        raise InvalidInputError("a text or an openai response with one", got=type(side).__name__)
    return text
