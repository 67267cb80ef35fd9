"""Which runs of a sweep MLflow should show side by side, and the addresses that show exactly these: pure functions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from segbench.core.ledger import Records
from segbench.final.selection import rank_trials
from segbench.results.finalists import rank_finalists
from segbench.tracking.runs import metric_name

MAX_RUNS = 100
"""MLflow's comparison of more is slow (mlflow#21841)."""


@dataclass(frozen=True)
class Comparison:
    """Addresses within MLflow's pages, and what they need to be known to the server."""

    compare: str
    """The comparison view on the chosen runs."""
    table: str
    """The run table on them, with chosen columns."""
    charts: str
    """Charts of them."""
    view_key: str
    """Name of the experiment's tag that holds the table's filter and columns."""
    view: str
    """Its value."""


def choose_runs(records: Records, top: int) -> list[str]:
    """Return the keys of the runs to compare, best first.

    The retrained seeds of the first ``top`` rows of the leaderboard, then the best ``top`` trials of the search,
    baselines among them; 100 runs at most. Without retraining the trials alone.
    """
    keys = [f"retrain/{seed.assignment.name}" for row in rank_finalists(records)[:top] for seed in row.retrain]
    keys += [
        f"search/{record.assignment.name}"
        for record in rank_trials(records.search, records.goal, records.requirements)[:top]
    ]
    return keys[:MAX_RUNS]


def compare_runs(experiment_id: str, run_ids: Sequence[str], records: Records) -> Comparison:
    """Return the addresses that show exactly ``run_ids``.

    Args:
        experiment_id: of all the runs.
        run_ids: in order.
        records: of the sweep, whose best scores sort the table.
    """
    ids, experiments = (quote(json.dumps(list(values))) for values in (run_ids, [experiment_id]))
    wanted = ", ".join(f"'{run_id}'" for run_id in run_ids)
    state: Mapping[str, Any] = {
        "searchFilter": f"attributes.run_id IN ({wanted})",
        "orderByKey": f"metrics.`{metric_name(f'best/{records.metric}')}`",
        "orderByAsc": records.goal == "minimize",
        "selectedColumns": table_columns(records),
        "runsHiddenMode": "SHOW_ALL",  # charts show the first ten otherwise
    }
    view = json.dumps(state)
    key = f"segbench-{hashlib.sha256(view.encode()).hexdigest()[:12]}"
    table = f"#/experiments/{experiment_id}/runs?viewStateShareKey={key}"
    return Comparison(
        compare=f"#/compare-runs?runs={ids}&experiments={experiments}",
        table=table,
        charts=f"{table}&compareRunsMode=CHART",
        view_key=f"mlflow.sharedViewState.{key}",
        view=view,
    )


def table_columns(records: Records) -> list[str]:
    """Return the columns of the run table in MLflow's names: what the run is, what was searched, how good it was."""
    params = dict.fromkeys(name for record in records.search for name in record.assignment.params)
    metrics = [f"best/{records.metric}", *(["test/miou"] if records.test else [])]
    return [
        *(f"tags.`{name}`" for name in ("stage", "rank", "state", "reason")),
        *(f"metrics.`{metric_name(name)}`" for name in metrics),
        *(f"params.`{metric_name(name)}`" for name in params),
        "attributes.`Duration`",
    ]
