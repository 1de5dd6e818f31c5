"""The rehearsal of faults, in small: nothing acknowledged is lost, nothing counts twice."""

from pathlib import Path

import pytest

from benchmarks.ingest_faults import rehearse


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_kills_lose_nothing_and_double_nothing(stream: str, tmp_path: Path) -> None:
    # This seed kills each of them.
    seen = rehearse(tmp_path, stream=stream, num_events=900, num_kills=3, seed=2, max_pause_s=2.0)
    assert seen["sent"] == seen["acknowledged"] == seen["accepted"] == 900
    assert (seen["lost"], seen["doubled"], seen["dead_letters"]) == (0, 0, 0)
    kinds = 3 if stream == "kafka" else 2
    assert sum(name.startswith("kills_") for name in seen) == kinds
