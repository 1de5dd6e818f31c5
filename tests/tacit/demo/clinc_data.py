"""Where the real CLINC150 lies, and a small made-up file of its form."""

import json
from pathlib import Path
from typing import Any

REAL_CLINC = Path(__file__).parents[4] / "shared" / "data" / "clinc150" / "data_full.json"


def made_up(num_intents: int = 6, *, per_split: int = 4) -> dict[str, Any]:
    """A data set of the published form whose intents are ``intent_0`` and so on."""
    intents = [f"intent_{number}" for number in range(num_intents)]
    splits = {
        split: [
            [f"{split} {n} of {intent}", intent] for intent in intents for n in range(per_split)
        ]
        for split in ("train", "val", "test")
    }
    return {**splits, "oos_train": [["what is love", "oos"]]}


def write(folder: Path, data: Any) -> Path:
    """Write ``data`` as ``data_full.json``."""
    path = folder / "data_full.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path
