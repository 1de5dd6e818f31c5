"""Killed amid a canary: the stage goes on, nobody changes release, nothing counts twice."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from collector.client import TacitClient
from collector.tables import EventRow, InteractionRow
from deploy.arms import Arms, assign
from deploy.tables import ReleaseRow, Stage
from deploy.verify import read_bundle, verify_bundle
from tacit.config import with_overrides
from tacit.contracts import ArmComparison, ArmResult, Release
from tacit.cycles import CycleState
from tacit.live import version_of
from tacit.ports import free_port
from tacit.signing import PUBLIC_NAME, Verifier
from tacit.start import prepare
from tests.deploy.scenes import until
from tests.integration.roles import roles
from tests.integration.rollout_scene import RELEASE, Scene, scene

__all__ = ["scene"]
SHARE = 0.5
CANARY_ENOUGH = 80
"""Feedback on the canary that ends the stage; the kills come well before."""


class Crowd:
    """Users who ask until they are answered, and note which release did."""

    def __init__(self, url: str, key: str) -> None:
        self.met: defaultdict[str, set[str]] = defaultdict(set)
        self.num_failed = 0
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._number = 0

    def come(self, number: int) -> dict[str, dict[str, str]]:
        """So many new users ask; the answer to each."""
        names = [f"u-{self._number + n}" for n in range(number)]
        self._number += number
        with httpx.Client(base_url=self._url, headers=self._headers) as http:
            return {name: self._ask(http, name) for name in names}

    @contextmanager
    def asking_on(self) -> Iterator[None]:
        """All who have ever asked ask again, over and over, while the block runs."""
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=self._url, headers=self._headers) as http:
                while not done.is_set():
                    for name in list(self.met):
                        self._ask(http, name)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _ask(self, http: httpx.Client, name: str) -> dict[str, str]:
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": "where is it"}],
            "user": name,
            "max_tokens": 2,
        }
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            try:
                answer = http.post("/v1/chat/completions", json=body)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                told: dict[str, str] = answer.json()
                self.met[name].add(told["model"])
                return told
            self.num_failed += 1
            time.sleep(0.001)
        raise AssertionError(f"no answer for {name}: {answer}")


class Verdicts:
    """What users said of the answers, through the SDK and on a list of the test's own."""

    def __init__(self, client: TacitClient) -> None:
        self._client = client
        self.said: defaultdict[str, list[float]] = defaultdict(list)
        """Successes by the version that answered."""

    def send(self, answers: dict[str, dict[str, str]]) -> None:
        """Four in five say that it helped."""
        for name, answer in answers.items():
            helped = int(name.removeprefix("u-")) % 5 > 0
            self._client.outcome(answer["id"], helped, subject_id=name)
            self.said[answer["model"]].append(float(helped))

    @property
    def number(self) -> int:
        return sum(map(len, self.said.values()))


def evidence(on: Scene) -> ArmComparison | None:
    rollout = on.loop.rollouts.of(RELEASE)
    assert rollout is not None
    return rollout.evidence and ArmComparison.model_validate_json(rollout.evidence)


def num_counted(on: Scene) -> int:
    found = evidence(on)
    return 0 if found is None else found.champion.num_feedback + found.canary.num_feedback


def approved_versions(on: Scene) -> set[str]:
    """Of all releases, each checked as serving does."""
    verifier = Verifier.load(on.settings.signing_path / PUBLIC_NAME)
    with on.loop.database.reader() as session:
        bundles = session.scalars(select(ReleaseRow.bundle)).all()
    checked = [
        verify_bundle(
            read_bundle(b), policy="default", store=on.loop.checkpoints, verifier=verifier
        )
        for b in bundles
    ]
    return {version_of("default", release.weights) for release in checked}


def drawn(subjects: Sequence[str], releases: tuple[Release, Release]) -> dict[str, set[str]]:
    """The version that answers each subject, by the draw alone."""
    arms = Arms(*releases, share=SHARE)
    versions = {}
    for subject in subjects:
        weights = assign(arms, model="default", subject=subject, episode=None).weights
        assert weights is not None
        versions[subject] = {version_of("default", weights)}
    return versions


def told(result: ArmResult) -> tuple[int, float]:
    assert result.mean is not None
    return result.num_feedback, round(result.mean, 9)


def expected(successes: list[float]) -> tuple[int, float]:
    return len(successes), round(sum(successes) / len(successes), 9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_a_stage_outlives_serving_loop_and_control(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    on = scene(canary_shares=[SHARE], min_feedback=CANARY_ENOUGH, margin=0.4)
    new, old = on.loop.releases.history("default", limit=2)
    settings = with_overrides(
        on.settings,
        [
            f"collector.port={free_port()}",
            f"deploy.port={free_port()}",
            "deploy.device=cpu",
            "loop.min_events=4096",
            "loop.poll_s=0.05",
        ],
    )
    prepare(settings)
    key = (settings.keys_path / "product.key").read_text().strip()
    crowd = Crowd(f"http://127.0.0.1:{settings.deploy.port}", key)
    collector = f"http://127.0.0.1:{settings.collector.port}"
    with (
        roles(settings, log=tmp_path / "roles.log") as process,
        TacitClient(collector, api_key=key, source="product") as client,
    ):
        verdicts = Verdicts(client)
        process.start("control", "serving", "screening", "loop")
        until(lambda: [r.canary_share for r in on.loop.releases.replicas("default")] == [SHARE])
        before = on.loop.rollouts.of(RELEASE)
        verdicts.send(crowd.come(30))
        with crowd.asking_on():
            answers = crowd.come(20)
            process.kill("serving")  # what it recorded last is not in the stream yet
            verdicts.send(answers)
            process.start("serving")
            verdicts.send(crowd.come(20))
            assert crowd.num_failed
            until(lambda: num_counted(on) > 0)
            crowd.num_failed = 0
            process.kill("loop", "control")
            verdicts.send(crowd.come(20))  # waits in the SDK
            assert client.num_waiting
            process.start("control", "loop")
            client.flush(timeout_s=60)
            until(lambda: num_counted(on) >= verdicts.number)
            assert crowd.num_failed == 0, "serving needs neither"
        counted, now = evidence(on), on.loop.rollouts.of(RELEASE)
        assert counted is not None
        assert before is not None
        assert now is not None
        assert (now.step, now.since) == (before.step, before.since)
        champion, canary = (version_of("default", release.weights) for release in (old, new))
        assert told(counted.champion) == expected(verdicts.said[champion])
        assert told(counted.canary) == expected(verdicts.said[canary])
        assert crowd.met == drawn(list(crowd.met), (old, new))
        with on.loop.database.reader() as session:
            recorded = session.scalars(select(InteractionRow.payload)).all()
        assert all(any(version in text for version in (champion, canary)) for text in recorded)
        assert approved_versions(on) == {champion, canary}

        while len(verdicts.said[canary]) < CANARY_ENOUGH:
            verdicts.send(crowd.come(10))
        until(lambda: on.at[0] is Stage.FULL)
        until(lambda: on.loop.cycles.last_ended("default") is not None)
        last = on.loop.cycles.last_ended("default")
    assert last is not None
    assert (last.state, last.release_id) == (CycleState.PROMOTED, RELEASE)
    with on.loop.database.reader() as session:
        keys = session.scalars(select(EventRow.event_key)).all()
    assert len(keys) == verdicts.number
    assert [entry.count(RELEASE) > 0 for entry in on.ledger("rollout")] == [True, True]
