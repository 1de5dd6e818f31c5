from dataclasses import replace

import pytest
import torch

from trainer.batches import micro_batches, plan_steps, schedule
from trainer.behaviour import Behaviour
from trainer.examples import JUDGED, Example, ExampleKind
from trainer.packing import to_device
from trainer.sequences import collate

KINDS = list(ExampleKind)


def examples(count: int = 23) -> list[Example]:
    """Examples of all kinds; the first prompt token is the example's number."""
    return [
        Example(
            kind=KINDS[i % len(KINDS)],
            prompt=(i, *range(50, 50 + i % 5)),
            completion=(100 + i,) * (1 + i % 3),
            rejected=(200 + i, 7) if KINDS[i % len(KINDS)] is ExampleKind.PAIR else (),
            weight=0.5 + i / 100,
            teacher_prompt=(i, 60, 61) if KINDS[i % len(KINDS)] is ExampleKind.CRITICISED else (),
        )
        for i in range(count)
    ]


def pack(step, **options):
    values = {"rank": 0, "world_size": 1, "max_tokens": 10_000, "max_length": 512, "pad_id": 0}
    return micro_batches(step, **{**values, **options})


def test_every_example_stands_in_exactly_one_step():
    steps = plan_steps(examples(), batch_size=4, seed=3)
    assert max(len(step) for step in steps) == 4
    assert sorted(e.prompt[0] for step in steps for e in step) == list(range(23))


def test_the_plan_depends_on_the_seed_alone():
    assert plan_steps(examples(), batch_size=4, seed=3) == plan_steps(
        examples(), batch_size=4, seed=3
    )
    assert plan_steps(examples(), batch_size=4, seed=3) != plan_steps(
        examples(), batch_size=4, seed=4
    )


def test_epochs_hold_every_step_once_in_changing_order():
    order = list(schedule(8, num_epochs=2, seed=0))
    assert sorted(order[:8]) == sorted(order[8:]) == list(range(8))
    assert order[:8] != order[8:]


def test_ranks_share_every_kind_of_a_step_out_without_rest():
    step = examples()
    firsts = [
        {
            int(ids[0])
            for batch in pack(step, rank=rank, world_size=2)
            for ids in batch.sequences.input_ids
        }
        for rank in range(2)
    ]
    assert sorted([*firsts[0], *firsts[1]]) == list(range(23))
    for kind in KINDS:
        of_kind = {e.prompt[0] for e in step if e.kind is kind}
        assert abs(len(firsts[0] & of_kind) - len(firsts[1] & of_kind)) <= 1


def test_more_ranks_than_examples_leave_a_rank_without_work():
    assert pack(examples(1), rank=1, world_size=2) == []


def test_pieces_stay_within_their_tokens():
    batches = pack(examples(), max_tokens=60)
    assert len(batches) > 3
    assert max(batch.sequences.input_ids.numel() for batch in batches) <= 60
    assert sum(len(batch.pair_weights) for batch in batches) == 4


def test_indices_point_at_the_right_sequences():
    (batch,) = pack(examples())
    ids = batch.sequences.input_ids
    by_number = {e.prompt[0]: e for e in examples()}
    for rows, kinds, weights in (
        (batch.chosen, {ExampleKind.PAIR}, batch.pair_weights),
        (batch.rejected, {ExampleKind.PAIR}, batch.pair_weights),
        (batch.likely, {ExampleKind.PAIR, ExampleKind.CHOSEN}, batch.likely_weights),
        (
            batch.judged,
            {ExampleKind.DESIRABLE, ExampleKind.UNDESIRABLE},
            batch.judged_weights,
        ),
        (batch.replayed, {ExampleKind.REPLAY}, batch.replay_weights),
    ):
        found = [by_number[int(ids[row, 0])] for row in rows]
        assert {example.kind for example in found} == kinds
        assert torch.allclose(weights, torch.tensor([example.weight for example in found]))
    rejected = [by_number[int(ids[row, 0])] for row in batch.rejected]
    for row, example in zip(batch.rejected, rejected, strict=True):
        width = len(example.prompt)
        assert tuple(ids[row, width : width + 2].tolist()) == example.rejected
    assert batch.desirable.tolist() == [
        by_number[int(ids[row, 0])].kind is ExampleKind.DESIRABLE for row in batch.judged
    ]


def test_anchored_tokens_are_all_and_only_those_of_anchored_replay():
    lessons = [replace(e, anchored=e.prompt[0] > 10) for e in examples()]
    (batch,) = pack(lessons)
    numbers = batch.sequences.input_ids[batch.anchored, 0]
    replayed = [e.prompt[0] for e in lessons if e.kind is ExampleKind.REPLAY]
    assert sorted(numbers.tolist()) == [n for n in replayed if n > 10]
    assert len(batch.replayed) == len(replayed) > len(numbers) > 0
    owners = batch.sequences.owners[batch.anchored_tokens]
    assert set(owners.tolist()) == set(batch.anchored.tolist())
    assert len(owners) == int(batch.sequences.lengths[batch.anchored].sum())
    assert len(batch.anchored_weights) == len(numbers)


def mismatched(step, *, world_size=1) -> dict[int, tuple[int, ...]]:
    """The mismatched completion by the first token of its prompt."""
    found = {}
    for rank in range(world_size):
        for batch in pack(step, rank=rank, world_size=world_size):
            sequences = batch.mismatched
            for row, ids in enumerate([] if sequences is None else sequences.input_ids):
                tokens = sequences.targets[sequences.owners == row]
                found[int(ids[0])] = tuple(tokens.tolist())
    return found


def judged(count: int = 23) -> dict[int, Example]:
    return {e.prompt[0]: e for e in examples(count) if e.kind in JUDGED}


def test_everyone_judged_meets_the_completion_of_another():
    found = mismatched(examples())
    assert found.keys() == judged().keys()
    assert sorted(found.values()) == sorted(e.completion for e in judged().values())
    assert all(found[number] != e.completion for number, e in judged().items())


def test_what_is_compared_does_not_depend_on_order_or_workers():
    expected = mismatched(examples())
    assert mismatched(examples()[::-1]) == expected
    assert mismatched(examples(), world_size=2) == expected


def test_an_answer_judged_twice_is_not_compared_with_itself():
    first, second = list(judged().values())[:2]
    again = replace(first, weight=0.1)
    assert mismatched([first, again, second]) == mismatched([first, second])
    assert pack([first, again])[0].mismatched is None


def test_what_was_sampled_is_not_compared():
    sampled = replace(judged()[2], behaviour=Behaviour((-1.0,) * 3))
    assert 2 not in mismatched([sampled, *list(judged().values())[1:]])


def test_the_teacher_reads_the_same_tokens_after_its_own_prompt():
    (batch,) = pack(examples())
    assert torch.equal(batch.taught.targets, batch.sequences.targets[batch.criticised_tokens])
    owners = batch.sequences.owners[batch.criticised_tokens]
    assert torch.equal(batch.sequences.input_ids[batch.criticised, 0], batch.taught.input_ids[:, 0])
    assert set(owners.tolist()) == set(batch.criticised.tolist())
    assert batch.taught.input_ids[:, 1:3].tolist() == [[60, 61]] * len(batch.criticised)


def test_behaviour_stands_beside_its_tokens():
    step = [
        replace(judged()[2], behaviour=Behaviour((-1.0, -2.0, -3.0))),
        examples()[0],
        replace(judged()[3], behaviour=Behaviour((-0.5,), temperature=0.7, top_p=0.9)),
    ]
    (batch,) = pack(step)
    behaviour = batch.behaviour
    assert batch.sequences.input_ids[batch.sampled, 0].tolist() == [2, 3]
    assert batch.positive.tolist() == [True, False]
    assert behaviour.logprobs.tolist() == [-6.0, -0.5]
    assert behaviour.temperatures.tolist() == pytest.approx([1, 1, 1, 0.7])
    assert behaviour.truncated.tolist() == [3]
    assert behaviour.top_p.tolist() == pytest.approx([0.9])
    assert len(batch.judged) == 0
    assert torch.equal(
        batch.sequences.targets[batch.sampled_tokens], torch.tensor([102, 102, 102, 103])
    )


def test_every_tensor_moves_to_the_device():
    (batch,) = pack(examples())
    moved = to_device(batch, "meta")
    assert moved.sequences.rows.is_meta
    assert moved.taught.targets.is_meta
    assert moved.behaviour.top_p.is_meta
    assert moved.criticised_tokens.is_meta


def test_a_lone_judged_example_has_no_mismatched_completion():
    (batch,) = pack([Example(ExampleKind.DESIRABLE, (1,), (2,))])
    assert batch.mismatched is None


def test_columns_are_the_positions_that_predict_completion_tokens():
    sequences = collate([((1, 2, 3), (4, 5)), ((6,), (7, 8, 9))], pad_id=0)
    assert sequences.input_ids.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [6, 7, 8, 9, 0, 0, 0, 0]]
    assert sequences.attention_mask.sum(-1).tolist() == [5, 4]
    assert sequences.attention_mask[0, :5].all()
    following = sequences.input_ids[sequences.rows, sequences.columns + 1]
    assert following.tolist() == sequences.targets.tolist() == [4, 5, 7, 8, 9]
    assert sequences.per_sequence(torch.ones(5)).tolist() == [2, 3]


def test_a_pair_behind_one_prompt_has_the_same_sequences():
    (apart,), (shared,) = pack(examples()), pack(examples(), share_prompts=True)
    for name in ("chosen", "rejected", "judged", "replayed", "anchored_tokens", "likely_weights"):
        assert torch.equal(getattr(apart, name), getattr(shared, name))
    for name in ("owners", "offsets", "targets", "lengths"):
        assert torch.equal(getattr(apart.sequences, name), getattr(shared.sequences, name))
    assert len(shared.sequences.input_ids) == len(apart.sequences.input_ids) - len(apart.chosen)


def test_pieces_of_shared_prompts_stay_within_their_tokens():
    batches = pack(examples(), max_tokens=60, share_prompts=True)
    assert max(batch.sequences.input_ids.numel() for batch in batches) <= 60


def test_what_the_teacher_reads_stays_within_its_tokens_and_makes_no_pieces_of_the_rest():
    step = [
        Example(ExampleKind.CRITICISED, (number, 1), (2, 3), teacher_prompt=(4,) * 30)
        for number in range(10)
    ]
    whole, parts = pack(step, max_tokens=400), pack(step, max_tokens=200)
    assert len(whole) == 1
    assert max(batch.taught.input_ids.numel() for batch in parts) <= 200
    judged = Example(ExampleKind.CHOSEN, (11, 1), (2, 3))
    assert len(pack([*step, *[judged] * 10], max_tokens=400)) == 1
