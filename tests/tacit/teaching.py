"""Corrections of many people, screened."""

from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from tacit.config import with_overrides
from tacit.contracts import Correction, short, utc_now
from tacit.stages import Stages
from tests.builders import digest, event, interaction


def send(
    stages: Stages, *prompts: str, answer: str = "right", holdout_share: float = 0
) -> list[str]:
    """Keys of the events, one of another person for each prompt."""
    settings = with_overrides(
        stages.settings, [f"collector.screening.holdout_share={holdout_share}"]
    )
    stream = open_stream(settings)
    events = [
        event(
            f"e-{short(digest(f'{prompt} {answer}'))}",
            subject_id=f"u-{short(digest(f'{prompt} {answer}'))}",
            occurred_at=utc_now(),
            interaction=interaction(prompt, "said"),
            feedback=Correction(completion=answer),
        )
        for prompt in prompts
    ]
    with Ingestor(stages.database, stream, settings) as ingestor:
        ingestor.accept(events)
    Consumer(stages.database, stream, settings).drain()
    stream.close()
    return [one.event_key for one in events]
