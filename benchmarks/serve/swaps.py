"""Swapping releases under constant load: what fails, what waits, what comes of two versions."""

import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import httpx

from benchmarks.load import closed_loop
from benchmarks.serve.compare import CLIENTS
from benchmarks.serve.model import MAX_TOKENS, requests
from benchmarks.serve.servers import Served
from deploy.openai_format import policy_version
from tacit.contracts import Digest, Message
from tacit.policies import load_policy

SETTLE_S = 0.5
"""How long after the first answer by new weights a swap is still going on."""
TIMEOUT_S = 60.0
NUM_AT_REST = 8 * CLIENTS
"""Answers before the first swap; those between two swaps that meet neither are at rest too."""


class Answer(NamedTuple):
    """One answer under load; times are of ``time.perf_counter``."""

    status: int
    model: str
    text: str
    sent_s: float
    came_s: float


class Swap(NamedTuple):
    """From the command to release other weights to the first answer by them."""

    commanded_s: float
    first_answer_s: float


def swaps_under_load(served: Served, texts: Sequence[str], *, num_swaps: int) -> dict[str, float]:
    """The figures of ``num_swaps`` swaps between two releases while clients ask on and on."""
    answers: list[Answer] = []
    stop = threading.Event()

    def note(status: int, body: bytes, sent_s: float, came_s: float) -> None:
        answers.append(_answer(status, body, sent_s, came_s))

    def ask() -> None:
        wanted = requests(texts, served.server.model, key=served.server.key)
        closed_loop(
            served.server.address,
            itertools.takewhile(lambda _: not stop.is_set(), wanted),
            connections=CLIENTS,
            duration_s=float("inf"),
            on_answer=note,
        )

    asking = threading.Thread(target=ask)
    with served.server.awake():
        asking.start()
        while asking.is_alive() and len(answers) < NUM_AT_REST:
            time.sleep(0.05)
        swaps = [_swap(served, answers, asking) for _ in range(num_swaps)]
        stop.set()
        asking.join()
        known = {
            policy_version(served.settings.policy, weights): _texts(served, weights, texts)
            for weights in served.versions
        }
    return figures(answers, swaps, known)


def figures(
    answers: Sequence[Answer], swaps: Sequence[Swap], known: Mapping[str, set[str]]
) -> dict[str, float]:
    """Failures, mixed answers, and how much longer the slow answers around a swap take."""
    whole = [answer for answer in answers if answer.status == 200]
    around = [a for a in whole if any(_meets(a, swap) for swap in swaps)]
    at_rest = [a for a in whole if not any(_meets(a, swap) for swap in swaps)]
    return {
        "swap_failed": len(answers) - len(whole),
        "swap_p99_ratio": _p99_s(around) / _p99_s(at_rest),
        "mixed_versions": sum(a.text not in known[a.model] for a in whole),
        "swap_answers": len(around),
    }


def rollback_s(served: Served, *, num_rounds: int) -> float:
    """Seconds from the command to roll back to the first answer by the old weights, median."""
    taken = []
    with served.server.awake(), httpx.Client() as client:
        for _ in range(num_rounds):
            started = time.perf_counter()
            wanted = policy_version(served.settings.policy, _roll_back(served))
            while _ask_briefly(served, client) != wanted:
                if time.perf_counter() - started > TIMEOUT_S:
                    raise TimeoutError(f"expected {wanted} to serve within {TIMEOUT_S:.0f} s")
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _swap(served: Served, answers: list[Answer], asking: threading.Thread) -> Swap:
    time.sleep(2 * SETTLE_S)
    commanded_s = time.perf_counter()
    wanted = policy_version(served.settings.policy, _roll_back(served))
    while asking.is_alive() and time.perf_counter() - commanded_s < TIMEOUT_S:
        for answer in _newest(answers):
            if answer.came_s < commanded_s:
                break
            if answer.model == wanted:
                time.sleep(SETTLE_S)
                return Swap(commanded_s, answer.came_s)
        time.sleep(0.01)
    raise TimeoutError(f"expected an answer by {wanted} within {TIMEOUT_S:.0f} s")


def _newest(answers: list[Answer]) -> Iterator[Answer]:
    return (answers[number] for number in range(len(answers) - 1, -1, -1))


def _roll_back(served: Served) -> Digest:
    newest, *older = served.line.desk.history(served.settings.policy)
    return served.swap(next(r for r in older if r.weights != newest.weights)).weights


def _ask_briefly(served: Served, client: httpx.Client) -> str:
    host, port = served.server.address
    answer = client.post(
        f"http://{host}:{port}/v1/chat/completions",
        headers={"Authorization": f"Bearer {served.server.key}"},
        json={
            "model": served.server.model,
            "messages": [{"role": "user", "content": "where is my order"}],
            "max_tokens": 1,
        },
    )
    return str(answer.raise_for_status().json()["model"])


def _answer(status: int, body: bytes, sent_s: float, came_s: float) -> Answer:
    if status != 200:
        return Answer(status, "", "", sent_s, came_s)
    said = json.loads(body)
    text = said["choices"][0]["message"]["content"]
    return Answer(status, said["model"], text, sent_s, came_s)


def _texts(served: Served, weights: Digest, texts: Sequence[str]) -> set[str]:
    policy = load_policy(served.line.store, weights)
    asked = [(Message(role="user", content=text),) for text in texts]
    return {c.text for c in policy.generate(asked, max_new_tokens=MAX_TOKENS)}


def _meets(answer: Answer, swap: Swap) -> bool:
    return swap.commanded_s <= answer.came_s and answer.sent_s <= swap.first_answer_s + SETTLE_S


def _p99_s(answers: Sequence[Answer]) -> float:
    latencies = sorted(answer.came_s - answer.sent_s for answer in answers)
    return latencies[min(int(0.99 * len(latencies)), len(latencies) - 1)]
