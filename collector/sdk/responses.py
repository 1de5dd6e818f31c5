"""What the SDK reads off an ``openai`` response, without needing that package.

Chat completions, text completions, the last chunk of a stream, objects of the Responses API and the
events of its streams all do.
"""

from typing import Any

from tacit.errors import InvalidInputError


def interaction_id_of(response: Any) -> str | None:
    """The id of an answer, or ``response`` itself if it is one. Raises InvalidInputError."""
    found = response if isinstance(response, str) else getattr(response, "id", None)
    if found is None and response is not None:
        # ``response.completed``, the last event of a stream of the Responses API, wraps it.
        found = getattr(getattr(response, "response", None), "id", None)
    if response is not None and not isinstance(found, str):
        raise InvalidInputError(
            "an openai response or an interaction id", got=type(response).__name__
        )
    return found


def text_of(side: Any) -> str:
    """The text of an answer, or ``side`` itself if it is one. Raises InvalidInputError."""
    if isinstance(side, str):
        return side
    text = getattr(side, "output_text", None)
    if text is None:
        text = _text_of_choice(side)
    if not isinstance(text, str):
        raise InvalidInputError("a text or an openai response with one", got=type(side).__name__)
    return text


def _text_of_choice(completion: Any) -> Any:
    try:
        choice = completion.choices[0]
        return choice.message.content if hasattr(choice, "message") else choice.text
    except (AttributeError, IndexError, TypeError):
        return None
