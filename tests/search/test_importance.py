from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.core.seeding import derive_seed
from segbench.search.importance import importances
from segbench.spec.domains import Categorical, Real
from segbench.spec.space import Parameter, Space

SPACE = Space(
    (
        Parameter("model", Categorical(("a", "b"))),
        Parameter("lr", Real(1e-4, 1e-1, log=True)),
        Parameter("idle", Real(0.0, 1.0)),
        Parameter("width", Categorical((1, 2, 3)), {"model": ("a",)}),
    )
)


def trial(number: int) -> TrialRecord:
    draw = [derive_seed(number, name) / 2**31 for name in ("model", "lr", "idle", "width")]
    params = {"model": "ab"[int(draw[0] * 2)], "lr": 10 ** (-4 + 3 * draw[1]), "idle": draw[2]}
    if params["model"] == "a":
        params["width"] = 1 + int(draw[3] * 3)
    score = 1 - abs(draw[1] - 0.5) + 0.2 * (params["model"] == "a") + 0.01 * draw[2]
    assignment = Assignment(
        number=number, name=f"t{number}", origin="search", params=params, config={}, seed=0, max_epochs=1
    )
    return TrialRecord(
        assignment=assignment, state=TrialState.PRUNED, epochs=(EpochRecord(epoch=1, score=score, metrics={}),)
    )


def test_what_decides_the_score_is_important_and_what_does_not_is_not() -> None:
    found = importances(SPACE, [trial(number) for number in range(120)], "maximize")
    assert set(found) == {"PED-ANOVA", "fANOVA"}
    for shares in found.values():
        assert next(iter(shares)) == "lr"
        assert shares["idle"] < 0.2
        assert abs(sum(shares.values()) - 1) < 1e-6
    assert "width" in found["PED-ANOVA"]


def test_a_few_trials_say_nothing() -> None:
    assert importances(SPACE, [trial(number) for number in range(7)], "maximize") == {}
