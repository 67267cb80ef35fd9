"""A sweep in five plain sentences: what won, by how much, how sure, what mattered, what to try next."""

from collections.abc import Sequence

from segbench.core.records import Scalar
from segbench.results.finalists import Finalist, mean, rows_on_front, sample_std
from segbench.results.folder import Results
from segbench.spec.domains import Categorical, Constant, Domain, Integer, Transformed

EDGE = 0.05
"""A value in the outer 5 % of its range lies at the edge."""


def conclude(results: Results) -> list[str]:
    """Return five sentences; fewer while there is nothing to say yet.

    Of a search for several metrics they are about the first one alone, which a sentence before them says.
    """
    ranked = [row for row in results.finalists if row.score is not None]
    if not ranked:
        return ["No trial has a score yet."]
    winner = ranked[0]
    return [
        *_which_metric(results),
        _what_won(winner, results),
        _by_how_much(winner, ranked[1:], results),
        _how_sure(winner, ranked[1:], results),
        _what_mattered(results),
        _what_next(winner, ranked[1:], results),
    ]


def _which_metric(results: Results) -> list[str]:
    if not results.records.objectives:
        return []
    names = [objective.name for objective in results.records.objectives]
    marks = rows_on_front(results.finalists, results.records.objectives)
    front = [row.name for row, is_on_front in zip(results.finalists, marks, strict=True) if is_on_front]
    told = f"{len(front)} of {len(marks)} rows" if len(front) > 5 else _listed(front)
    return [
        f"No row is better in {_listed(names)} together than {told}; what follows is about the primary metric, "
        f"{results.metric}, alone."
    ]


def edge_of_range(domain: Domain, value: Scalar) -> str | None:
    """Return ``upper`` or ``lower`` when ``value`` lies at that end of what can be drawn; None in between.

    A list of values has no ends, and whole numbers need three values to have a middle.
    """
    if isinstance(domain, Constant | Categorical) or not isinstance(value, int | float):
        return None
    choices = domain.choices()
    if choices is not None and len(choices) < 3:
        return None
    if isinstance(domain, Integer):
        return "lower" if value == domain.low else "upper" if value == domain.high else None
    base = domain.base if isinstance(domain, Transformed) else domain
    share = base.position(value)
    return "lower" if share <= EDGE else "upper" if share >= 1 - EDGE else None


def test_mious(row: Finalist) -> list[float]:
    """Return the mIoU on the test split of each tested seed."""
    return [record.epochs[-1].metrics["test/miou"] for record in row.test if record.epochs]


def _what_won(winner: Finalist, results: Results) -> str:
    seeds = winner.scores
    if not seeds:
        return f"{winner.name} leads with {results.metric} {_number(winner.search_score)} in the search."
    spread = sample_std(seeds)
    text = f"{winner.name} won with {results.metric} {_number(mean(seeds))}"
    text += f" ± {_number(spread)} over {len(seeds)} seeds" if spread is not None else " with one seed"
    tests = test_mious(winner)
    return f"{text}, and mIoU {_number(mean(tests))} on the test split." if tests else f"{text}."


def _by_how_much(winner: Finalist, others: Sequence[Finalist], results: Results) -> str:
    own = winner.score
    if not others or own is None:
        return "There is nothing to compare it with."
    baselines = [row for row in others if row.search.assignment.origin == "baseline"]
    rivals = [("the next row", others[0])]
    if baselines and baselines[0] is not others[0] and winner.search.assignment.origin != "baseline":
        rivals.append(("the best baseline", baselines[0]))
    sign = 1 if results.goal == "maximize" else -1
    parts = []
    for role, row in rivals:
        score = row.score
        assert score is not None
        parts.append(f"{_number(sign * (own - score))} {results.metric} better than {role} ({row.name})")
    return f"That is {' and '.join(parts)}."


def _how_sure(winner: Finalist, others: Sequence[Finalist], results: Results) -> str:
    confidence = results.confidence
    interval = confidence.intervals.get(winner.name)
    if interval is None:
        return "How sure that is cannot be said: there are no results on eight or more test images."
    bounds = f"{_number(interval.low)} to {_number(interval.high)}"
    text = f"With {confidence.num_images} test images its test mIoU lies within {bounds} (95 %)"
    if not others:
        return f"{text}."
    text += ", and it"
    tied = [row.name for row in others if row.name in confidence.tied_with(winner.name)]
    if not tied:
        return f"{text} can be told from every other row."
    return f"{text} cannot be told from {_listed(tied)} on the test split."


def _what_mattered(results: Results) -> str:
    found = results.importances
    if not found:
        return "What mattered cannot be said of so few trials."
    measure, shares = next(iter(found.items()))
    top = [f"{name} ({100 * share:.0f} %)" for name, share in list(shares.items())[:3] if share >= 0.05]
    return f"What mattered most in the search was {_listed(top)}, by {measure}."


def _what_next(winner: Finalist, others: Sequence[Finalist], results: Results) -> str:
    params = winner.search.assignment.params
    advice = []
    for parameter in results.space.parameters if winner.search.assignment.origin != "baseline" else ():
        edge = edge_of_range(parameter.domain, params.get(parameter.name))
        if edge is not None:
            value = params[parameter.name]
            advice.append(f"the best {parameter.name}, {value:.4g}, is at the {edge} end of its range: widen it")
    best = winner.search.best(results.goal)
    if best is not None and best.epoch == winner.search.assignment.max_epochs:
        advice.append(f"its best epoch was the last of {best.epoch}: train longer")
    if any(row.name in results.confidence.tied_with(winner.name) for row in others):
        advice.append("more test images or seeds would tell the tied rows apart")
    if winner.search.assignment.origin == "baseline":
        advice.append("no searched configuration beat the baseline: search narrower ranges around it, or more trials")
    if results.audit is not None and results.audit.wrong:
        audit = results.audit
        advice.append(
            f"{len(audit.wrong)} of {audit.num_audited} audited stops were wrong: raise scheduler.grace_epochs"
        )
    if not advice:
        advice.append("nothing of the winner lies at an end of its range; more trials are the next step")
    return f"What to try next: {'; '.join(advice)}."


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
