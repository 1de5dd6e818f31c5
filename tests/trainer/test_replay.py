import pytest

from tacit.contracts import Correction, Critique, Outcome, Preference, Rating, RatingScale
from tacit.errors import ConfigError, InvalidInputError
from tests import builders as build
from tests.trainer.builders import replay_examples
from trainer.replay import (
    accepted_examples,
    accepted_rollouts,
    draw,
    load_anchor,
    num_replay,
    on_policy_prompts,
    sample_replay,
    with_rollouts,
)


@pytest.mark.parametrize(
    ("num_events", "share", "expected"), [(90, 0.1, 10), (100, 0.5, 100), (64, 0.0, 0), (9, 0.1, 1)]
)
def test_the_share_is_of_all_examples(num_events, share, expected):
    assert num_replay(num_events, share) == expected


def test_a_share_of_everything_is_refused():
    with pytest.raises(ConfigError, match="below 1"):
        num_replay(10, 1.0)


def test_a_large_pool_is_drawn_from_without_replacement():
    sample = sample_replay(replay_examples(50), num_events=90, share=0.1, seed=0)
    assert len({example.digest() for example in sample}) == 10


def test_a_small_pool_is_used_up_whole_and_then_again():
    pool = replay_examples(3)
    sample = sample_replay(pool, num_events=90, share=0.1, seed=0)
    assert len(sample) == 10
    assert {example.digest() for example in sample} == {example.digest() for example in pool}


def test_the_sample_depends_on_the_seed_and_not_on_the_order_of_the_pool():
    def sample(pool: list, seed: int) -> list:
        return sample_replay(pool, num_events=90, share=0.1, seed=seed)

    pool = replay_examples(50)
    assert sample(pool, 0) == sample(pool[::-1], 0)
    assert sample(pool, 0) != sample(pool, 1)


def test_no_pool_no_replay():
    assert sample_replay([], num_events=90, share=0.1, seed=0) == []


def test_an_anchor_file_holds_texts_or_messages(tmp_path):
    path = tmp_path / "anchor.jsonl"
    path.write_text(
        '{"prompt": "hi", "completion": "hello"}\n\n'
        '{"prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],'
        ' "completion": "hello"}\n'
    )
    first, second = load_anchor(path)
    assert first.prompt == build.user("hi")
    assert [message.role for message in second.prompt] == ["system", "user"]
    assert {first.origin, second.origin} == {"anchor"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"prompt": "hi"}',
        '{"prompt": [], "completion": ""}',
        '{"prompt": "hi", "completion": 1}',
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "anchor.jsonl"
    path.write_text('{"prompt": "hi", "completion": "hello"}\n' + line)
    with pytest.raises(InvalidInputError, match=r"anchor\.jsonl:2"):
        load_anchor(path)


def test_a_missing_anchor_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="anchor_path"):
        load_anchor(tmp_path / "none.jsonl")


def test_only_completions_shown_to_be_good_are_rehearsed():
    scale = RatingScale(low=1, high=5)
    feedbacks = [
        Correction(completion="corrected"),
        Preference(chosen="chosen", rejected="rejected"),
        Outcome(metric="resolved", value=True),
        Outcome(metric="resolved", value=False),
        Rating(value=5, scale=scale),
        Rating(value=3, scale=scale),
        Critique(text="too long"),
    ]
    events = [
        build.screened(f"e-{i}", completion="said", feedback=feedback)
        for i, feedback in enumerate(feedbacks)
    ]
    distrusted = build.screened("e-9", weight=0.0)
    completions = [example.completion for example in accepted_examples([*events, distrusted])]
    assert completions == ["corrected", "chosen", "said", "said"]


def test_what_is_little_trusted_is_rehearsed_with_as_little_weight():
    scale = RatingScale(low=1, high=5)
    events = [
        build.screened("e-1", feedback=Correction(completion="billing"), weight=0.05),
        build.screened("e-2", completion="said", feedback=Rating(value=4, scale=scale), weight=0.5),
        build.screened("e-3", feedback=Correction(completion="billing"), weight=1e-9),
    ]
    taught = accepted_examples(events)
    assert [example.weight for example in taught] == [0.05, 0.25]
    rollouts = accepted_rollouts(taught, ["billing", "said"], lambda *_: True)
    assert [e.weight for e in with_rollouts(taught, rollouts, 1.0)] == [0.05, 0.25]


def test_examples_of_before_they_had_a_weight_keep_their_digests():
    [example] = replay_examples(1)
    assert set(example.model_dump(mode="json")) == {"prompt", "completion", "origin"}
    lighter = example.model_copy(update={"weight": 0.5})
    assert lighter.digest() != example.digest()
    assert type(lighter).model_validate_json(lighter.canonical_json()) == lighter


def test_a_smaller_draw_is_the_beginning_of_a_larger_one():
    for pool in (replay_examples(50), replay_examples(4)):
        assert draw(pool, 20, seed=3)[:7] == draw(pool, 7, seed=3)


def test_only_answers_the_checker_accepts_are_rehearsed_as_the_policys_own():
    sample = draw(replay_examples(8), 8, seed=0)
    asked = on_policy_prompts(sample, 0.5)
    assert asked == sample[:4]
    answers = ["Billing.", "shipping", None, "billing"]
    rollouts = accepted_rollouts(asked, answers, lambda a, good: a.lower().strip(".") == good)
    mixed = with_rollouts(sample, rollouts, 0.5)
    assert [(e.completion, e.origin) for e in mixed[:4]] == [
        ("Billing.", "on_policy"),
        ("billing", "anchor"),
        ("billing", "anchor"),
        ("billing", "on_policy"),
    ]
    assert [e.prompt for e in mixed] == [e.prompt for e in sample]
    assert mixed[4:] == sample[4:]


@pytest.mark.parametrize("origin", ["accepted", "inferred"])
def test_lessons_of_deployment_have_half_of_the_replay_however_large_the_anchor(origin):
    anchor, taught = replay_examples(500), replay_examples(20, origin=origin)
    sample = draw([*anchor, *taught], 100, seed=0)
    origins = [example.origin for example in sample]
    assert origins[:40].count(origin) == 20
    assert origins[40:].count(origin) == 0
    assert len({example.digest() for example in sample}) == 100


def test_the_anchor_has_half_of_the_replay_however_many_the_lessons():
    anchor, taught = replay_examples(10), replay_examples(500, origin="accepted")
    origins = [example.origin for example in draw([*anchor, *taught], 20, seed=0)]
    assert origins.count("anchor") == 10


@pytest.mark.parametrize("origin", ["accepted", "inferred"])
def test_lessons_stay_lessons_in_the_policys_own_words(origin):
    taught = replay_examples(2, origin=origin)
    rollouts = accepted_rollouts(taught, ["Billing", "billing."], lambda *_: True)
    assert {example.origin for example in with_rollouts(taught, rollouts, 1.0)} == {origin}


def test_a_prompt_drawn_twice_is_asked_once():
    sample = draw(replay_examples(2), 9, seed=0)
    assert len(on_policy_prompts(sample, 1.0)) == 2
