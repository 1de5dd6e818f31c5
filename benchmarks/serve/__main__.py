"""Serving beside ``transformers serve``, and swaps of releases under load.

    python -m benchmarks.serve [--quick] [--peer-python PYTHON]

All serve the same random policy of 2.5 million weights and are asked the same tickets for 64 greedy
tokens each, by one client and by 16, on the CPU. The peer needs ``pip install
'transformers[serving]'`` in the environment of PYTHON, by default this one. Servers take turns and
sleep when it is not their turn; ratios are medians of rounds. Recording is on throughout. The test
of a canary is simulated (``benchmarks.canary``).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import canary
from benchmarks.results import DETAILS, report
from benchmarks.serve.compare import CLIENTS, cpu_ratio, load, ratio, recording_cost, take_turns
from benchmarks.serve.model import prompts, save_policy
from benchmarks.serve.servers import Served, Server, tacit_server, transformers_server
from benchmarks.serve.swaps import rollback_s, swaps_under_load

_CHECK = "import transformers.cli.serve; from transformers.utils import is_torch_available; import \
accelerate, fastapi, uvicorn, openai"


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, kept nowhere")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PYTHON")
    arguments = parser.parse_args()
    require_peer(arguments.peer_python)
    figures: canary.Figures = {
        **measure(arguments.peer_python, quick=arguments.quick),
        **canary.measure(quick=arguments.quick, names=canary.REQUIRED),
    }
    if arguments.quick:
        print(json.dumps(figures))
        return
    (DETAILS / "serve.json").write_text(json.dumps(figures, indent=2) + "\n")
    report("serve", dict(figures))


def require_peer(python: str) -> None:
    """Exit and say how to get it if the peer cannot be started."""
    found = subprocess.run([python, "-c", _CHECK], capture_output=True, text=True, check=False)
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["nothing"])[-1]
        sys.exit(
            f"expected `transformers serve` in the environment of {python}; got {last}. Make one "
            "with `python -m venv PEER && PEER/bin/pip install 'transformers[serving]'` and pass "
            "--peer-python PEER/bin/python."
        )


def measure(peer_python: str, *, quick: bool) -> dict[str, float]:
    """Start all servers and compare them."""
    texts = prompts()
    duration_s, num_rounds, num_swaps = (3.0, 1, 2) if quick else (8.0, 5, 20)
    with tempfile.TemporaryDirectory(prefix="tacit-serve-") as name, ExitStack() as stack:
        home = Path(name)
        folders = (home / "a", home / "b")
        for seed, folder in enumerate(folders):
            save_policy(folder, seed=seed)
        served = stack.enter_context(tacit_server(home / "tacit", folders))
        peers = [
            stack.enter_context(
                transformers_server(
                    peer_python, folders[0], home / f"peer-{cb}.log", continuous_batching=cb
                )
            )
            for cb in (False, True)
        ]
        _warm_up([served.server, *peers], texts)
        rounds = take_turns(
            [served.server, *peers], texts, num_rounds=num_rounds, duration_s=duration_s
        )
        figures = {
            "throughput_vs_transformers_serve": ratio(
                rounds, "tacit", "transformers_serve", clients=CLIENTS
            ),
            "throughput_vs_transformers_cb": ratio(
                rounds, "tacit", "transformers_cb", clients=CLIENTS
            ),
            "single_vs_transformers_cb": ratio(rounds, "tacit", "transformers_cb", clients=1),
            "cpu_vs_transformers_serve": cpu_ratio(
                rounds, "tacit", "transformers_serve", clients=CLIENTS
            ),
            "cpu_vs_transformers_cb": cpu_ratio(
                rounds, "tacit", "transformers_cb", clients=CLIENTS
            ),
        }
        for (server, clients), taken in rounds.items():
            figures[f"{server}_{clients}_per_s"] = max(each.per_s for each in taken)
        print(json.dumps(figures))
        return {**figures, **_of_tacit(served, texts, duration_s=duration_s, num_swaps=num_swaps)}


def _of_tacit(
    served: Served, texts: list[str], *, duration_s: float, num_swaps: int
) -> dict[str, float]:
    return {
        "recording_cost": recording_cost(served.server, texts, duration_s=3 * duration_s),
        **swaps_under_load(served, texts, num_swaps=num_swaps),
        "rollback_s": rollback_s(served, num_rounds=5),
    }


def _warm_up(servers: list[Server], texts: list[str]) -> None:
    for server in servers:
        load(server, texts, clients=CLIENTS, duration_s=1.0)
        with server.awake():
            pass


if __name__ == "__main__":
    main()
