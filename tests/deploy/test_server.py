"""The server as products meet it: the official client against a real server."""

import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from deploy.engines.transformers import TransformersEngine
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Interaction, sha256_digest, short
from tacit.database import Database
from tacit.policies import load_policy
from tests.builders import user
from tests.deploy.scenes import until
from tests.deploy.serving import MESSAGES, PROMPT, greedy, serving, version


def test_answer_names_its_version_and_is_recorded(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        raw = server.client.chat.completions.with_raw_response.create(
            model="default",
            messages=MESSAGES,
            temperature=0,
            max_completion_tokens=8,
            user="u-1",
            logprobs=True,
            metadata={"episode_id": "ep-1"},
        )
    answer, weights = raw.parse(), server.line.desk.anchor("default")
    expected = greedy(store, weights)
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.finish_reason == expected.finish_reason
    assert answer.model == raw.headers["X-Tacit-Policy-Version"] == version(weights)
    assert answer.system_fingerprint == f"fp_{short(weights)}"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    shown = [token.logprob for token in choice.logprobs.content]
    assert shown == pytest.approx(expected.logprobs, abs=1e-4)
    (recorded,) = server.recorded
    assert recorded.interaction_id == answer.id
    assert recorded.prompt == user(PROMPT)
    assert recorded.completion == expected.text
    assert recorded.completion_ids == expected.token_ids
    assert list(recorded.logprobs or ()) == shown
    assert recorded.policy_version == version(weights)
    assert (recorded.source, recorded.subject_id, recorded.episode_id) == (
        "helpdesk",
        "u-1",
        "ep-1",
    )
    template = load_policy(store, weights).tokenizer.chat_template
    assert recorded.template_digest == sha256_digest(template.encode())
    assert (recorded.arm, recorded.arm_probability) == ("champion", 1.0)
    assert recorded.sampling is not None
    assert (recorded.sampling.temperature, recorded.sampling.max_tokens) == (0, 8)


def test_what_asks_not_to_be_recorded_is_not(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        server.ask(extra_headers={"X-Tacit-Record": "no"})
        kept = server.ask()
    assert [i.interaction_id for i in server.recorded] == [kept.id]


def test_a_share_of_the_traffic_is_left_unrecorded_by_config(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path, unrecorded_share=1.0) as server:
        assert server.ask().choices[0].message.content
    assert server.recorded == []


def test_an_answer_that_has_come_is_recorded_already(
    sqlite_database: Database,
    store: CheckpointStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deploy.chat.RECORD_WAIT_S", 30.0)  # a moment is soon over when all is busy
    with serving(sqlite_database, store, tmp_path) as server:
        for number in range(5):
            answer = server.ask()
            assert server.recorded[number].interaction_id == answer.id
            (*_, last) = server.ask(stream=True)
            assert server.recorded.pop().interaction_id == last.id


def test_recording_that_is_slow_or_fails_does_not_touch_the_answer(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    let_go, seen = threading.Event(), []

    def record(interaction: Interaction) -> None:
        assert let_go.wait(timeout=60)
        seen.append(interaction.interaction_id)
        raise OSError("no space left")

    with serving(sqlite_database, store, tmp_path, record=record) as server:
        answers = [server.ask().id for _ in range(3)]
        assert seen == []
        let_go.set()
    assert seen == answers


def test_choices_are_each_recorded_under_an_id_of_their_own(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        answer = server.ask(n=3, temperature=1.5, seed=5)
        again = server.ask(n=3, temperature=1.5, seed=5)
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) > 1
    recorded = server.recorded[:3]
    assert [i.interaction_id for i in recorded] == [answer.id, f"{answer.id}.1", f"{answer.id}.2"]
    assert [i.completion for i in recorded] == texts


@pytest.mark.parametrize("n", [1, 2])
def test_streamed_answer_is_the_whole_answer_in_pieces(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path, n: int
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        whole = server.ask(max_tokens=20)
        options = {"include_usage": True}
        events = list(server.ask(max_tokens=20, n=n, stream=True, stream_options=options))
    assert len({event.id for event in events}) == 1
    assert {event.model for event in events} == {whole.model}
    for index in range(n):
        mine = [c for event in events for c in event.choices if c.index == index]
        text = "".join(c.delta.content or "" for c in mine)
        assert text == whole.choices[0].message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [
            whole.choices[0].finish_reason
        ]
    assert len(events) > 5
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == n * whole.usage.completion_tokens
    assert server.recorded[1].interaction_id == events[0].id
    assert server.recorded[1].completion == whole.choices[0].message.content


def test_streamed_logprobs_cover_every_token(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        events = list(server.ask(stream=True, logprobs=True))
    logprobs = [c.logprobs for event in events for c in event.choices if c.logprobs]
    got = [token.logprob for part in logprobs for token in part.content or ()]
    assert tuple(got) == server.recorded[0].logprobs


@pytest.mark.parametrize("stream", [False, True])
def test_the_likeliest_tokens_come_beside_the_one_that_was_drawn(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path, stream: bool
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        asked = server.ask(stream=stream, logprobs=True, top_logprobs=2)
        choices = [c for event in asked for c in event.choices] if stream else asked.choices
    tokens = [t for c in choices if c.logprobs for t in c.logprobs.content or ()]
    assert len(tokens) == len(server.recorded[0].completion_ids or ())
    for token in tokens:
        assert len(token.top_logprobs) == 2
        assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == (
            token.token,
            token.logprob,
        )


def test_a_text_is_gone_on_with_as_it_is_and_not_recorded(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        create = server.client.completions.create
        asked: Any = {"model": "default", "prompt": "where is", "temperature": 0, "max_tokens": 6}
        whole = create(**asked, logprobs=2)
        several = create(**{**asked, "prompt": ["where is", "billing"]}, n=2)
        events = list(create(**asked, stream=True, stream_options={"include_usage": True}))
        with pytest.raises(openai.UnprocessableEntityError, match="echo"):
            create(**asked, echo=True)
        weights = server.line.desk.anchor("default")
    policy = load_policy(store, weights)
    ids = policy.tokenizer("where is")["input_ids"]
    expected = policy.model.generate(
        torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0
    )[0, len(ids) :]
    text = policy.tokenizer.decode(expected, skip_special_tokens=True)
    assert whole.choices[0].text == text
    assert whole.model == version(weights)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or ()) == len(logprobs.token_logprobs or ()) == len(expected)
    assert all(len(top) <= 2 for top in logprobs.top_logprobs or ())
    assert [c.text for c in several.choices[:2]] == [text, text]
    assert several.usage is not None
    assert whole.usage is not None
    billing = len(policy.tokenizer("billing")["input_ids"])
    assert several.usage.prompt_tokens == whole.usage.prompt_tokens + billing
    assert "".join(c.text for event in events for c in event.choices) == text
    assert events[-1].usage == whole.usage
    assert server.recorded == []


def test_stop_ends_the_answer(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        text = server.ask().choices[0].message.content
        stop = text[2:4]
        for given in (stop, [stop]):
            (choice,) = server.ask(stop=given).choices
            assert choice.message.content == text[: text.index(stop)].strip()
            assert choice.finish_reason == "stop"


def test_every_request_survives_swaps_and_gets_one_policys_answer(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    answers: list[Any] = []
    failures: list[Exception] = []
    finished = threading.Event()
    with serving(database, store, tmp_path) as server:

        def ask_until_told(stream: bool) -> None:
            while not finished.is_set():
                try:
                    if stream:
                        events = list(server.ask(stream=True))
                        text = "".join(
                            c.delta.content or "" for event in events for c in event.choices
                        )
                        answers.append((events[0].model, text))
                    else:
                        answer = server.ask()
                        answers.append((answer.model, answer.choices[0].message.content))
                except Exception as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=ask_until_told, args=(i % 2 == 1,)) for i in range(4)]
        for thread in threads:
            thread.start()
        releases = [server.line.desk.history("default")[0]]
        for variant in (2, 3):
            until(lambda: len(answers) >= 20 * len(releases) or failures)
            releases.append(server.line.promote(server.line.evidence(variant)))
            until(lambda: server.serves(releases[-1]))
        until(lambda: len(answers) >= 60 or failures)
        releases.append(server.line.rollback())
        until(lambda: server.serves(releases[-1]))
        enough = len(answers) + 20
        until(lambda: len(answers) >= enough or failures)
        finished.set()
        for thread in threads:
            thread.join()
    assert failures == []
    expected = {version(r.weights): greedy(store, r.weights).text for r in releases}
    assert len(set(expected.values())) == 3
    assert {model for model, _ in answers} == set(expected)
    assert [text for model, text in answers if text != expected[model]] == []
    recorded = {(i.policy_version, i.completion_ids) for i in server.recorded}
    assert recorded == {(version(r.weights), greedy(store, r.weights).token_ids) for r in releases}
    assert len(server.recorded) == len(answers)


def test_tampered_release_is_refused_and_the_old_one_keeps_serving(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        shown = server.line.evidence(2)
        path = store.path(shown.candidate.weights) / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        refused = server.line.promote(shown)
        until(lambda: server.readiness()["refused"] == refused.release_id)
        answer = server.ask()
        state = server.readiness()
    assert answer.model == version(server.line.desk.anchor("default"))
    assert state["ready"] is True
    assert state["release"] == "r-default-0"
    assert "model.safetensors" in state["refusal"]


def test_without_a_release_the_server_is_up_but_not_ready(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path, variant=None) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert server.client.models.list().data == []
        with pytest.raises(openai.InternalServerError, match="none loaded yet") as refused:
            server.ask()
        assert refused.value.status_code == 503
        first = server.line.first()
        until(lambda: server.serves(first))
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.ask().choices[0].message.content


def test_models_are_the_line_and_its_version(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        names = [model.id for model in server.client.models.list()]
        assert names == ["default", version(server.line.desk.anchor("default"))]
        assert server.client.models.retrieve(names[1]).owned_by == "tacit"
        assert server.ask(model=names[1]).model == names[1]
        with pytest.raises(openai.NotFoundError):
            server.client.models.retrieve("gpt-9")


def test_a_slow_batch_does_not_block_the_event_loop(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    engine = TransformersEngine(store, max_batch_size=1, max_queue=8, device="cpu")
    with serving(sqlite_database, store, tmp_path, engine=engine) as server:
        with engine._changed:  # nothing can be submitted or taken
            thread = threading.Thread(target=server.ask)
            thread.start()
            assert httpx.get(f"{server.url}/healthz", timeout=10).status_code == 200
            assert thread.is_alive()
        thread.join()
    assert len(server.recorded) == 1
