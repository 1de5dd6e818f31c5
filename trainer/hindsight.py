"""What a teacher reads that the student does not: the prompt, and in it what was learned since.

With a critique the teacher is the parent policy that has seen it; the student, which has not,
learns to say what the teacher would have said (``trainer.losses.critique_loss``). The wording
follows table 2 of Hübotter et al. 2026, arXiv 2601.20802. As there, the answer that was criticised
is not in the prompt: the teacher reads it token by token as the beginning of its own. One that
stood in the prompt would be copied, which teaches what was criticised; it cost 4 of 48 points there
(table 6). With a demonstration (SDFT) or a success (SDPO) the prompt holds another answer.
"""

from collections.abc import Sequence

from tacit.contracts import Message

TEMPLATE = """\
The following is feedback on your earlier answer to this:

{critique}

Answer the original request again, minding the feedback."""

DEMONSTRATION = """\
This is an example of a response to this:

{text}

Now answer with a response of your own."""
"""After figure 2 of Shenfeld et al. 2026, arXiv 2601.19897."""

SUCCESS = """\
This is a correct answer to this:

{text}"""
"""After table 2 of arXiv 2601.20802: an answer of the policy's own that had success."""


def with_hindsight(prompt: Sequence[Message], critique: str) -> tuple[Message, ...]:
    """``prompt`` with the critique at the end of its last user message."""
    return with_note(prompt, TEMPLATE.format(critique=critique.strip()))


def with_note(prompt: Sequence[Message], note: str) -> tuple[Message, ...]:
    """``prompt`` with ``note`` at the end of its last user message.

    After a message of another role it becomes a user message of its own: many chat templates refuse
    two of one role in a row.
    """
    *before, last = prompt
    if last.role != "user":
        return (*prompt, _from_user(note))
    return (*before, _from_user(f"{last.content}\n\n{note}"))


def _from_user(content: str) -> Message:
    # Not validated: two texts of the greatest length may meet here, and tokens are cut later on.
    return Message.model_construct(role="user", content=content)
