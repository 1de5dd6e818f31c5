"""Choosing a share of an update: what is taken, and what is measured for it."""

from collections.abc import Sequence

import pytest

from evaluator.choose import VariantChooser
from evaluator.evaluate import Evaluator
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import CheckerSpec, Suite, SuiteKind, VariantChoice
from tacit.database import Database
from tacit.errors import UnavailableError
from tests import builders
from tests.evaluator.rules import TOPICS, RulePolicy, old_world, opener

CHAMPION = builders.digest("champ")
ALPHAS = (0.25, 0.5, 0.75, 1.0)


class Variants:
    """A policy for every alpha that loses ``losses[alpha]`` of its topics; counts what is built."""

    def __init__(self, losses: dict[float, int]) -> None:
        self.built: list[float] = []
        self.policies = {
            self.digest(alpha): RulePolicy(dict(list(TOPICS.items())[lost:]))
            for alpha, lost in losses.items()
        }
        self.policies[CHAMPION] = RulePolicy(TOPICS)

    @staticmethod
    def digest(alpha: float) -> str:
        return builders.digest(f"variant-{alpha}")

    def build(self, alpha: float) -> str:
        self.built.append(alpha)
        return self.digest(alpha)


def choose(
    db: Database,
    store: CheckpointStore,
    variants: Variants,
    suites: Sequence[Suite] | None = None,
    *,
    alphas: Sequence[float] = ALPHAS,
    from_smallest: bool = False,
    **fields: object,
) -> VariantChoice:
    settings = EvaluatorSettings.model_validate({"batch_size": 64, **fields})
    return VariantChooser(settings, store, db, open_policy=opener(variants.policies)).choose(
        alphas,
        trained=variants.digest(1.0),
        build=variants.build,
        champion=CHAMPION,
        suites=[old_world(200)] if suites is None else suites,
        from_smallest=from_smallest,
    )


def forbidding(num_items: int, kind: SuiteKind = SuiteKind.SAFETY) -> Suite:
    """A suite whose first item, about the first topic, must never be got wrong."""
    suite = old_world(num_items, name="safety", kind=kind)
    first = suite.items[0].model_copy(update={"non_negotiable": True})
    return suite.model_copy(update={"items": (first, *suite.items[1:])})


def test_an_update_that_forgets_nothing_is_taken_whole(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    variants = Variants(dict.fromkeys(ALPHAS, 0))
    choice = choose(sqlite_database, store, variants)
    assert (choice.alpha, variants.built) == (1.0, [1.0])
    (result,) = choice.variants
    assert result.stands
    assert result.weights == choice.trained == variants.digest(1.0)
    assert result.versus_champion["old-world"].difference == 0


@pytest.mark.parametrize(
    ("losses", "from_smallest", "taken", "measured"),
    [
        ((0, 0, 0, 1), False, 0.75, [1.0, 0.25, 0.5, 0.75]),
        ((0, 0, 2, 3), False, 0.5, [1.0, 0.25, 0.5, 0.75]),
        ((0, 1, 0, 2), False, 0.25, [1.0, 0.25, 0.5]),
        ((1, 1, 1, 1), False, 1.0, [1.0, 0.25]),
        ((0, 0, 0, 0), True, 1.0, [0.25, 0.5, 0.75, 1.0]),
        ((0, 0, 0, 1), True, 0.75, [0.25, 0.5, 0.75, 1.0]),
        ((0, 1, 0, 0), True, 0.25, [0.25, 0.5]),
        ((1, 0, 0, 0), True, 1.0, [0.25]),
    ],
)
def test_the_largest_share_is_taken_that_stands_with_all_below_it(
    sqlite_database: Database,
    store: CheckpointStore,
    losses: tuple[int, ...],
    from_smallest: bool,
    taken: float,
    measured: list[float],
) -> None:
    variants = Variants(dict(zip(ALPHAS, losses, strict=True)))
    choice = choose(sqlite_database, store, variants, from_smallest=from_smallest)
    assert choice.alpha == taken
    assert variants.built == [result.alpha for result in choice.variants] == measured
    lost = {r.alpha: r.versus_champion["old-world"].difference for r in choice.variants}
    wanted = dict(zip(ALPHAS, losses, strict=True))
    assert lost == {alpha: pytest.approx(-0.2 * wanted[alpha]) for alpha in measured}


def test_from_the_smallest_up_there_is_no_second_chance(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    variants = Variants({0.25: 0, 0.5: 0, 0.75: 0, 1.0: 1})
    choice = choose(sqlite_database, store, variants, from_smallest=True)
    assert {r.versus_champion["old-world"].confidence for r in choice.variants} == {0.95}


def test_a_second_chance_is_given_with_more_confidence(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    variants = Variants({0.25: 0, 0.5: 0, 0.75: 0, 1.0: 1})
    choice = choose(sqlite_database, store, variants)
    assert [r.versus_champion["old-world"].confidence for r in choice.variants] == [
        0.95,
        *[pytest.approx(0.99)] * 3,
    ]
    # 150 items that all stay right show 3 points at 95 %, and do not at 99 %.
    assert choose(sqlite_database, store, variants, [old_world(150)]).alpha == 1.0


def test_a_lost_non_negotiable_item_makes_a_share_fall(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    variants = Variants({0.25: 0, 0.5: 0, 0.75: 1, 1.0: 1})
    choice = choose(sqlite_database, store, variants, [forbidding(5)])
    assert choice.alpha == 0.5
    assert "safety: q-0 is wrong" in choice.variants[0].why


def test_hold_out_is_not_looked_at(sqlite_database: Database, store: CheckpointStore) -> None:
    variants = Variants(dict.fromkeys(ALPHAS, 1))
    hold_out = forbidding(200, kind=SuiteKind.HOLDOUT)
    assert choose(sqlite_database, store, variants, [hold_out]).alpha == 1.0
    assert [policy.num_asked for policy in variants.policies.values()] == [0] * 5


@pytest.mark.parametrize("num_items", [0, 100])
def test_suites_too_small_to_show_anything_cost_nothing(
    sqlite_database: Database, store: CheckpointStore, num_items: int
) -> None:
    variants = Variants(dict.fromkeys(ALPHAS, 1))
    choice = choose(sqlite_database, store, variants, [old_world(num_items)])
    assert (choice.alpha, choice.variants, variants.built) == (1.0, (), [])
    assert "no suite" in choice.reason
    wide = choose(sqlite_database, store, variants, [old_world(100)], variant_margin=0.05)
    assert len(wide.variants) == 2


def test_one_alpha_is_taken_unmeasured(sqlite_database: Database, store: CheckpointStore) -> None:
    variants = Variants({0.5: 1})
    choice = choose(sqlite_database, store, variants, alphas=[0.5])
    assert (choice.alpha, choice.variants) == (0.5, ())


def test_what_cannot_be_measured_is_left_to_the_gate(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    broken = old_world(200, checker=CheckerSpec(type="no_such_checker"))
    choice = choose(sqlite_database, store, Variants(dict.fromkeys(ALPHAS, 0)), [broken])
    assert choice.alpha == 1.0
    assert "no_such_checker" in choice.reason


def test_a_database_that_is_away_is_raised(
    sqlite_database: Database, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise UnavailableError("the database")

    monkeypatch.setattr(sqlite_database, "reader", away)
    with pytest.raises(UnavailableError):
        choose(sqlite_database, store, Variants(dict.fromkeys(ALPHAS, 0)))


def test_the_report_asks_nothing_again(sqlite_database: Database, store: CheckpointStore) -> None:
    variants = Variants(dict.fromkeys(ALPHAS, 0))
    choose(sqlite_database, store, variants)
    asked = {digest: policy.num_asked for digest, policy in variants.policies.items()}
    settings = EvaluatorSettings(batch_size=64)
    candidate = builders.candidate(weights=variants.digest(1.0))
    Evaluator(settings, store, sqlite_database, open_policy=opener(variants.policies)).evaluate(
        candidate, champion=CHAMPION, anchor=CHAMPION, suites=[old_world(200)], learned=[]
    )
    assert {d: p.num_asked for d, p in variants.policies.items()} == asked


def test_a_share_is_measured_no_longer_than_it_takes(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    variants = Variants(dict.fromkeys(ALPHAS, 0))
    choice = choose(sqlite_database, store, variants, [old_world(1_000)])
    assert choice.variants[0].versus_champion["old-world"].anytime
    assert choice.variants[0].versus_champion["old-world"].ci_low > -0.03
    assert variants.policies[variants.digest(1.0)].num_asked < 500
