"""What a sweep says while it runs and when it has ended, in a terminal, a file or a notebook."""

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from segbench.core.paths import SweepPaths
from segbench.core.records import SweepObserver
from segbench.spec.load import LoadedSpec
from segbench.terminal.console import plain_console

if TYPE_CHECKING:
    from segbench.results.folder import Results


class Screen:
    """Standard output for what is asked for, standard error for warnings."""

    def __init__(self) -> None:
        self.out = plain_console(sys.stdout)
        self.err = plain_console(sys.stderr)

    def tell(self, message: str) -> None:
        """Print a line."""
        self.out.print(message, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a line to standard error, yellow where there are colours."""
        self.err.print(message, style="yellow", soft_wrap=True)

    def progress(self, loaded: LoadedSpec) -> AbstractContextManager[SweepObserver]:
        """Give an observer that shows progress until the block ends."""
        from segbench.search.forecast import forecast
        from segbench.spec.plan import plan_sweep
        from segbench.terminal.estimate import ExpectedWork
        from segbench.terminal.progress import progress

        plan = plan_sweep(loaded.spec, loaded.space)
        work = ExpectedWork(forecast(loaded.spec, plan.trials).epochs.median, plan.retrain_epochs)
        return progress(loaded.spec, work, self.out)

    def conclude(self, results: "Results", mlflow_at: str | None) -> None:
        """Print the leaderboard, what follows from it, and where everything is.

        Args:
            results: of the sweep that has ended.
            mlflow_at: where its runs were delivered to; None: to no MLflow.
        """
        from segbench.results.conclusion import conclude
        from segbench.terminal.tables import LeaderboardView

        self.out.print(LeaderboardView(results.board))
        for sentence in conclude(results):
            self.tell(sentence)
        for line in _places(results.paths, mlflow_at):
            self.tell(line)


def _places(paths: SweepPaths, mlflow_at: str | None) -> list[str]:
    at = f" (at {mlflow_at})" if mlflow_at is not None and mlflow_at.startswith("http") else ""
    return [
        f"report       {paths.report}",
        f"leaderboard  {paths.leaderboard}",
        *([] if mlflow_at is None else [f"MLflow       segbench compare {paths.root}{at}"]),
        f"Optuna       optuna-dashboard {paths.study}",
        *([] if paths.uri is None else [f"elsewhere    segbench report {paths.uri}"]),
    ]
