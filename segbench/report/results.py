"""Everything that a report says of one sweep, read from its folder once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from segbench.paths import STAGES, SweepPaths
from segbench.records import Goal, TrialRecord
from segbench.report.audit import Audit, measure_audit
from segbench.report.confidence import Confidence, measure_confidence
from segbench.report.finalists import Finalist, rank_finalists
from segbench.report.folder import read_leaderboard, read_records
from segbench.report.runs import Records
from segbench.search.importance import importances
from segbench.spec.load import LoadedSpec, load_spec
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space


@dataclass(frozen=True)
class Results:
    """A sweep's folder as it is now."""

    paths: SweepPaths
    loaded: LoadedSpec
    records: Records
    finalists: tuple[Finalist, ...]
    """Rows of the leaderboard, best first."""
    confidence: Confidence
    board: pd.DataFrame

    @property
    def spec(self) -> SweepSpec:
        """The sweep file."""
        return self.loaded.spec

    @property
    def space(self) -> Space:
        """What was searched."""
        return self.loaded.space

    @property
    def metric(self) -> str:
        """The searched metric."""
        return self.spec.metric.name

    @property
    def goal(self) -> Goal:
        """Direction of improvement."""
        return self.spec.metric.goal

    @cached_property
    def importances(self) -> dict[str, Mapping[str, float]]:
        """Importance of each parameter by measure."""
        return importances(self.space, self.records["search"], self.goal, self.spec.search.seed)

    @cached_property
    def audit(self) -> Audit | None:
        """How often it was wrong to stop a trial, as far as was audited."""
        retrain = self.spec.retrain
        return measure_audit(self.records["search"], retrain.top_k if retrain else 1, self.goal)

    def scored(self) -> list[tuple[TrialRecord, float]]:
        """Return the search trials that have a score, with the best one of each."""
        pairs = ((record, record.best(self.goal)) for record in self.records["search"])
        return [(record, best.score) for record, best in pairs if best is not None]


def read_results(paths: SweepPaths) -> Results:
    """Return what the folder of a sweep says, also while it runs."""
    loaded = load_spec(paths.spec)
    records, metric = read_records(paths), loaded.spec.metric
    search, retrain, test = (records[stage] for stage in STAGES)
    finalists = rank_finalists(search, retrain, test, metric.goal)
    return Results(
        paths=paths,
        loaded=loaded,
        records=records,
        finalists=tuple(finalists),
        confidence=measure_confidence(paths, finalists),
        board=read_leaderboard(paths, metric.name, metric.goal),
    )
