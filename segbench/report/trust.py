"""How far the numbers can be trusted: facts and the rung table, as HTML."""

from segbench.core.records import TrialState
from segbench.report.markup import table
from segbench.results.audit import Audit
from segbench.results.conclusion import test_mious
from segbench.results.finalists import mean, sample_std
from segbench.results.folder import Results
from segbench.results.statistics import rank_correlation
from segbench.search.rungs import rung_scores


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
    """Return a row per rung: who came, who went on, and the score that was needed at last."""
    scheduler, search = results.spec.scheduler, results.records.search
    rows = []
    for rung in scheduler.rungs:
        scores = sorted(rung_scores(search, rung, results.goal).values(), reverse=results.goal == "maximize")
        if not scores:
            continue
        ended = [record.as_stopped() for record in search]
        stopped = sum(record.state is TrialState.PRUNED and record.epochs_done == rung for record in ended)
        cut = scores[max(1, len(scores) // scheduler.reduction_factor) - 1]
        numbers = [(f"{score:.4f}", score) for score in (scores[0], cut)]
        rows.append([rung, len(scores), stopped, len(scores) - stopped, *numbers])
    if not rows:
        return ""
    headings = [
        "rung (epoch)",
        "trials there",
        "stopped",
        "went on",
        "best score",
        "score needed at last",
    ]
    return f"<h3>Rungs</h3>{table(headings, rows)}"


def _looks(results: Results) -> str:
    tests = results.records.test
    again = sum(len(record.attempts) for record in tests)
    text = f"{len(tests)}, one per retraining"
    return f"{text}; {again} of them were begun again after a failure" if again else text
