"""Training methods in place of the mixed objective: ``trainer.method``.

| method | learns from                                                             |
| ------ | ----------------------------------------------------------------------- |
| sft    | corrected and chosen texts, answers with a positive signal, replay      |
| dpo    | corrections and preferences; sigmoid plus ``nll_weight`` times NLL      |
| kto    | chosen as desirable, rejected as undesirable, outcomes, ratings, replay |
| grpo   | prompts; rewards of sampled answers against mean and spread of a group  |
| rloo   | prompts; rewards of sampled answers against the mean of the others      |
| sdft   | prompts; the parent that reads a demonstration teaches                  |
| sdpo   | prompts; the parent that reads a critique or a success teaches          |
| star   | prompts with a known answer; own rationales that lead to it             |

All train with TRL. They run in one worker, on the same tokens as everything else in Tacit, with
the parent policy as explicit reference or teacher model: TRL would otherwise take the adapter it is
given, or the bare base. TRL knows no weight per example, so trust only
decides whether an event takes part.

    run.py                opens the parent, runs a method, saves what came out; start reading here
    inputs.py             what a method is made of, and the arguments all of TRL's trainers get
    streaming.py          runs a trainer in a thread and streams its steps
    offline.py            sft, dpo, kto
    policy_gradient.py    grpo, rloo
    self_distillation.py  sdft, sdpo
    star.py               star
    prompts.py            prompts to sample answers to, with what is known about each
    reward.py             reward functions and models
    trial.py              tries the reward when the trainer starts
    answers.py            when two answers are the same, and where in a text the answer is
"""

from trainer.methods.run import run_method

__all__ = ["run_method"]
