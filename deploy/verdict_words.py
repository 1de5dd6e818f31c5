"""The state of a sequential test in one sentence."""

from tacit.contracts import ArmResult, LiveVerdict


def sentence(
    verdict: LiveVerdict,
    *,
    champion: ArmResult,
    canary: ArmResult,
    loss: tuple[float, float],
    e_value: float,
    alpha: float,
    margin: float,
    tolerance: float,
) -> str:
    """Why the verdict is what it is, with its numbers; ``loss`` is its least and its greatest."""
    least, greatest = loss
    seen = f"canary {_arm(canary)} against champion {_arm(champion)}"
    evidence = f"evidence {e_value:.3g} of {1 / alpha:g}"
    beyond = f"more than {_points(tolerance)} points worse" if tolerance else "worse"
    if verdict == "rollback":
        return f"{seen}: {beyond}, {evidence}"
    if verdict == "promote":
        if greatest < margin:
            return f"{seen}: it loses less than {_points(greatest)} points at most"
        return f"{seen}: no evidence against it after enough feedback ({evidence})"
    between = f"the loss is between {_points(least)} and {_points(greatest)} points"
    return f"{seen}: {between}, undecided ({evidence} that it is {beyond})"


def _arm(arm: ArmResult) -> str:
    of = f"{arm.num_feedback} events of {arm.num_subjects} subjects"
    return f"without feedback ({of})" if arm.mean is None else f"{arm.mean:.3f} ({of})"


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
