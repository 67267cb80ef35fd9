"""How far the numbers can be trusted: facts and the rung table, as HTML."""

from collections.abc import Sequence
from typing import Any

from segbench.core.records import Goal, Scalar, TrialRecord, TrialState
from segbench.report.markup import table
from segbench.results.audit import Audit
from segbench.results.conclusion import test_mious
from segbench.results.finalists import mean, sample_std
from segbench.results.folder import Results
from segbench.results.statistics import rank_correlation
from segbench.search.rungs import rung_scores
from segbench.spec.schema import Scheduler


def trust_facts(results: Results) -> str:
    """Return what is known of optimism, luck, ties and wrong stops, a line each."""
    facts = [*_finalist_facts(results), *(_audit_facts(results.audit, results) if results.audit else [])]
    return table([], facts, "facts") if facts else ""


def _finalist_facts(results: Results) -> list[list[str]]:
    rows = results.finalists
    pairs = [(s, r) for row in rows if (s := row.search_score) is not None and (r := mean(row.scores)) is not None]
    if not pairs:
        return []
    facts = []
    correlation = rank_correlation([search for search, _ in pairs], [retrained for _, retrained in pairs])
    if correlation is not None:
        text = f"{correlation:.2f} over {len(pairs)} rows"
        facts.append(["Search score and retrained score rank alike (Spearman)", text])
    winner = rows[0]
    search, seeds, tests = winner.search_score, winner.scores, test_mious(winner)
    if search is not None and seeds:
        text = f"{search:.4f} in the search, {mean(seeds):.4f} retrained"
        if tests and results.metric == "val/miou":
            text += f", {mean(tests):.4f} on the test split: {search - (mean(tests) or 0):+.4f}"
        facts.append([f"Optimism of the winner, {winner.name}", text])
    spreads = [spread for row in rows if (spread := sample_std(row.scores)) is not None]
    if spreads and len(pairs) > 1:
        lead = abs(pairs[0][1] - pairs[1][1])
        facts.append(["Spread over seeds (mean std), and the winner's lead", f"{mean(spreads):.4f}, and {lead:.4f}"])
    facts.append(["Looks at the test split", _looks(results)])
    for comparison in results.confidence.comparisons[: len(rows) - 1]:
        interval = comparison.difference.interval
        bounds = f"{comparison.difference.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
        verdict = "different" if comparison.is_different else "cannot be told apart"
        text = f"{bounds}, p = {comparison.adjusted_p_value:.3g} after Holm: {verdict}"
        facts.append([f"test/miou of {comparison.first} minus {comparison.second}", text])
    return facts


def _audit_facts(audit: Audit, results: Results) -> list[list[str]]:
    low, high = audit.interval.low, audit.interval.high
    stops = f"{len(audit.wrong)} of {audit.num_audited} audited: {100 * audit.rate:.1f} %"
    stops += f" (95 % interval, for all {audit.num_stops} stops: {100 * low:.1f} % to {100 * high:.1f} %)"
    if audit.num_running:
        stops += f"; {audit.num_running} more still run"
    scored = f"scored above {audit.needed:.4f}, which is what the last searched finalist without the audit had"
    names = f": {', '.join(audit.wrong)}" if audit.wrong else ""
    regret = (
        f"{audit.regret:.4f} {results.metric} at least: from the best trial that was not stopped to the best audited"
    )
    return [
        ["Wrong stops of ASHA", stops],
        ["Wrong means: at full length the trial", scored + names],
        ["Regret of stopping early", regret],
    ]


def rung_table(results: Results) -> str:
    """Return a row per rung and family: who came, who went on, and the score that was needed at last."""
    families: dict[tuple[Scalar, ...], list[TrialRecord]] = {}
    for record in results.records.search:
        had = {**record.assignment.config, **record.assignment.params}
        families.setdefault(results.space.family_of(had), []).append(record)
    rows = [
        [*([] if len(families) == 1 else [" ".join(map(str, family))]), *row]
        for family, members in sorted(families.items(), key=lambda pair: repr(pair[0]))
        for row in _rungs_of(members, results.spec.scheduler, results.goal)
    ]
    if not rows:
        return ""
    headings = ["rung (epoch)", "trials there", "stopped", "went on", "best score", "score needed at last"]
    return f"<h3>Rungs</h3>{table([*([] if len(families) == 1 else ['compared among']), *headings], rows)}"


def _rungs_of(search: Sequence[TrialRecord], scheduler: Scheduler, goal: Goal) -> list[list[Any]]:
    """Return a row for each rung that some of the trials, which compare with each other, have reached."""
    rows: list[list[Any]] = []
    ended = [record.as_stopped() for record in search]
    for rung in scheduler.rungs:
        scores = sorted(rung_scores(search, rung, goal).values(), reverse=goal == "maximize")
        if not scores:
            continue
        stopped = sum(record.state is TrialState.PRUNED and record.epochs_done == rung for record in ended)
        cut = scores[max(1, len(scores) // scheduler.reduction_factor) - 1]
        numbers = [(f"{score:.4f}", score) for score in (scores[0], cut)]
        rows.append([rung, len(scores), stopped, len(scores) - stopped, *numbers])
    return rows


def _looks(results: Results) -> str:
    tests = results.records.test
    again = sum(len(record.attempts) for record in tests)
    text = f"{len(tests)}, one per retraining"
    return f"{text}; {again} of them were begun again after a failure" if again else text
