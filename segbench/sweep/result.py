"""What a sweep found, for Python and notebooks: tables, the best configuration and its model, the report."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.enqueued import read_enqueued
from segbench.core.errors import StateError, UserError
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, Params
from segbench.final.retrain import plan_retraining, plan_tests
from segbench.final.selection import select_finalists
from segbench.search.refused import is_refused_proposal, num_on_top
from segbench.spec.load import LoadedSpec
from segbench.spec.plan import plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.sweep.folder import is_running, open_sweep

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from PIL import Image

    from segbench.final.model import LoadedModel
    from segbench.report.vega import Chart
    from segbench.results.folder import Results

    Picture = str | Path | Image.Image | npt.NDArray[np.uint8]

Status = Literal["running", "finished", "unfinished"]

_SHOWN_ROWS = 20
"""Of a leaderboard in a notebook."""


@dataclass(frozen=True)
class Best:
    """The first row of the leaderboard that has a score: ``result.best``.

    Examples:
        >>> import segbench
        >>> best = segbench.load("runs/quickstart").best
        >>> best.name
        'trial-0000'
        >>> 0 <= best.score <= 1
        True
        >>> best.settings["model"], best.settings["batch_size"]
        ('unet', 2)
        >>> classes = best.predict("street.png")       # or a numpy array, or a PIL image
        >>> classes.shape, classes.dtype
        ((48, 96), dtype('uint8'))
        >>> colours = best.model().colorize(classes)   # uint8 (H, W, 3), RGB
        >>> best.model().groups[1]
        'flat'
    """

    name: str
    """Of the search trial or baseline: ``trial-0007``, ``baseline-unet``."""
    score: float
    """Of the searched metric: the mean over retrained seeds of each one's best epoch; where nothing was retrained, or
    without validation, the search's score."""
    params: Params
    """What was searched, by dotted name."""
    settings: Mapping[str, Any] = field(repr=False)
    """Everything that it was trained with: all settings of the training function."""
    folder: Path | None
    """Where its weights are (``model.safetensors``, ``config.json``); None if its training function keeps no model."""
    _models: "dict[str, LoadedModel]" = field(default_factory=dict, repr=False, compare=False)

    def model(self, device: str = "cpu") -> "LoadedModel":
        """Return its trained model: of the seed with the best validation score.

        Args:
            device: ``cpu``, ``cuda`` or any other that torch knows.

        Raises:
            UserError: its training kept no model.
        """
        from segbench.final.model import load_model

        if self.folder is None:
            raise UserError(f"{self.name} has no model: its training function gave none (EpochResult.save_model)")
        if device not in self._models:
            self._models[device] = load_model(self.folder, device, precision="fp32")
        return self._models[device]

    def predict(self, image: "Picture", device: str = "cpu") -> "npt.NDArray[np.uint8]":
        """Return the class of every pixel of one picture.

        Args:
            image: uint8 (H, W, 3) RGB, a PIL image of any mode, or the path of a picture file.
            device: where it is computed, in float32.

        Returns:
            uint8 (H, W): indices into ``model().groups``.

        Raises:
            DataError: the file cannot be read as a picture.
            ValueError: an array of another shape or type.
        """
        return self.model(device).predict_image(_pixels(image))


@dataclass(frozen=True, repr=False)
class SweepResult:
    """What a sweep found: its folder as it was when it was loaded; tables are made when they are first asked for.

    In a notebook a result shows as its leaderboard. Nothing here imports torch or Ray but :meth:`Best.model` and
    :meth:`Best.predict`.

    Examples:
        >>> import segbench
        >>> result = segbench.load("runs/quickstart")
        >>> result
        <SweepResult 'quickstart': finished, 2 search trials, best val/miou 0... (trial-0000), runs/quickstart>
        >>> result.leaderboard[["rank", "name", "state", "seeds"]]
           rank        name     state  seeds
        0     1  trial-0000  COMPLETE      1
        >>> result.trials.groupby("stage").size().to_dict()
        {'retrain': 1, 'search': 2, 'test': 1}
        >>> result.epochs.query("stage == 'search'").groupby("name")["val/miou"].max().between(0, 1).all()
        np.True_
        >>> sorted(result.best.params)
        ['lr', 'width']
        >>> result.charts
        ['agreement', ..., 'learning-curves', ...]
        >>> result.chart("learning-curves").save("curves.png")
        >>> result.report()
        PosixPath('runs/quickstart/report.html')
    """

    paths: SweepPaths
    """Every file of the folder."""
    loaded: LoadedSpec = field(repr=False)
    """The sweep file as checked, and its search space."""

    @property
    def spec(self) -> SweepSpec:
        """The sweep file as resolved."""
        return self.loaded.spec

    @cached_property
    def status(self) -> Status:
        """``running``: a process runs it now; ``finished``: nothing is left to do; ``unfinished``: it was broken off.

        The same call of :func:`segbench.run` continues an unfinished sweep.
        """
        if is_running(self.paths):
            return "running"
        return "finished" if _has_ended(self._results) else "unfinished"

    @cached_property
    def leaderboard(self) -> "pd.DataFrame":
        """A row per finalist, best first; all columns of ``leaderboard.csv``, which docs/results.md explains.

        Types do not depend on the values: whole numbers are ``Int64``, scores, seconds and other numbers ``Float64``,
        texts ``string``; missing cells are ``pd.NA``. Scores are in the unit of the metric (mIoU: 0 to 1). Without a
        ``retrain:`` section there is a row per search trial, and no column about seeds and tests.
        """
        from segbench.results.parquet import leaderboard_frame

        return leaderboard_frame(self._results.board)

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A row per trial of every stage; the columns of ``trials.parquet``, which docs/results.md explains.

        Among them ``stage``, ``name``, ``state``, ``reason``, ``epochs``, ``best_score``, ``seconds``, and
        ``params.<name>`` of each parameter. Whole numbers are ``Int64``, numbers ``Float64``, texts ``string``, times
        UTC.
        """
        from segbench.results.parquet import to_frame, trials_parquet

        return to_frame(trials_parquet(self._results.records))

    @cached_property
    def epochs(self) -> "pd.DataFrame":
        """A row per epoch of every trial; the columns of ``metrics.parquet``, which docs/results.md explains.

        ``stage``, ``name`` and ``epoch`` (from 1) say which; then a column per metric, such as ``val/miou``,
        ``val/iou/sky`` (0 to 1), ``train/loss``, ``time/epoch_s`` (seconds). ``confusion`` is K*K pixel counts, row by
        row (truth); ``epochs.attrs["groups"]`` names the K groups. Types are those of :attr:`trials`.
        """
        from segbench.results.parquet import group_names_of, metrics_parquet, to_frame

        table = metrics_parquet(self._results.records)
        frame = to_frame(table)
        frame.attrs["groups"] = group_names_of(table)
        return frame

    @cached_property
    def best(self) -> Best:
        """The first row of the leaderboard that has a score, with its model.

        Raises:
            StateError: no trial has a score yet.
        """
        row = next((row for row in self._results.finalists if row.score is not None), None)
        score = None if row is None else row.score
        if row is None or score is None:
            raise StateError(f"{self.paths.place}: no trial has a score yet; look at result.trials for the reasons")
        folders = (self.paths.model(row.name), self._results.model_folder(row))
        folder = next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)
        assignment = row.search.assignment
        return Best(row.name, score, assignment.params, assignment.config, folder)

    @property
    def conclusion(self) -> list[str]:
        """What won, by how much, how sure that is, what mattered and what to try next: a sentence each."""
        from segbench.results.conclusion import conclude

        return conclude(self._results)

    def report(self) -> Path:
        """Write the report of the sweep as it is now and return its path: one HTML file with everything in it."""
        from segbench.report.build import write_report

        write_report(self.paths)
        return self.paths.report

    @property
    def charts(self) -> list[str]:
        """Names of the report's charts that there are data for, in the order of the page."""
        return list(self._charts)

    def chart(self, name: str) -> "Chart":
        """Return a chart of the report; a notebook shows it as a picture.

        Args:
            name: one of :attr:`charts`, such as ``learning-curves``.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self._charts:
            raise UserError(f"{name!r}: no such chart; of this sweep there are {', '.join(self._charts) or 'none yet'}")
        return self._charts[name]

    def show(self, height: int = 900) -> None:
        """Write the report and show it: in a frame within a notebook (Jupyter, VS Code, Colab), else in the browser.

        Where there is no browser either, it says where the file is.

        Args:
            height: of the frame in a notebook, in pixels.
        """
        file = self.report()
        if in_notebook():
            from IPython.display import display

            display(_Frame(file, height))
            return
        import webbrowser

        if not webbrowser.open(file.absolute().as_uri()):
            from segbench.terminal.screen import Screen

            Screen().tell(f"report       {file}")

    def __repr__(self) -> str:
        return f"<SweepResult {self._summary()}, {self.paths.place}>"

    def _repr_html_(self) -> str:
        """Return the leaderboard's main columns as HTML: what a notebook shows of a result."""
        from segbench.results.tables import summarize

        board = self._results.board
        rows = summarize(board).head(_SHOWN_ROWS)
        table = rows.to_html(index=False, border=0) if len(board) else "<p>no trials yet</p>"
        more = len(board) - len(rows)
        left = f"<p>and {more} more rows: <code>result.leaderboard</code></p>" if more > 0 else ""
        return f"<div><p>{escape(self._summary())}</p>{table}{left}</div>"

    def _summary(self) -> str:
        records, count = self._results.records, len(self._results.records.search)
        parts = [f"{self.spec.name!r}: {self.status}", f"{count} search trial{'' if count == 1 else 's'}"]
        row = next((row for row in self._results.finalists if row.score is not None), None)
        parts.append("no score yet" if row is None else f"best {records.metric} {row.score:.4f} ({row.name})")
        return ", ".join(parts)

    @cached_property
    def _charts(self) -> "dict[str, Chart]":
        from segbench.report.build import all_charts

        return {chart.name: chart for chart in all_charts(self._results)}

    @cached_property
    def _results(self) -> "Results":
        from segbench.results.folder import read_results

        return read_results(self.paths, self.spec)


def load(place: str | Path) -> SweepResult:
    """Return what a sweep found: a finished one, one that runs, or one that was broken off.

    Args:
        place: its folder, such as ``runs/quickstart``, or its address in a bucket, which is brought here first.

    Raises:
        StateError: there is no sweep.

    Examples:
        >>> import segbench
        >>> segbench.load("runs/quickstart").status
        'finished'
        >>> segbench.load("runs/nothing")
        Traceback (most recent call last):
            ...
        segbench.core.errors.StateError: runs/nothing is not a sweep's folder (no sweep.yaml in it); give one ...
    """
    return SweepResult(*open_sweep(str(place)))


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel: Jupyter, VS Code, Colab."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return getattr(get_shell(), "kernel", None) is not None


@dataclass(frozen=True)
class _Frame:
    """A page in a frame of its own: its styles and scripts do not meet those of the notebook."""

    file: Path
    height: int

    def __repr__(self) -> str:
        return f"report {self.file}"

    def _repr_html_(self) -> str:
        page = escape(self.file.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="{self.height}" style="border: 0"></iframe>'


def _has_ended(results: "Results") -> bool:
    """Whether nothing is left to do of a sweep: no trial runs, and none that belongs to it is missing."""
    spec, records = results.spec, results.records
    if not all(record.state.is_finished for _, record in records):
        return False
    plan = plan_sweep(spec, results.space)
    hours = sum(record.seconds for record in records.search) / 3600
    is_spent = spec.budget.trial_hours is not None and hours >= spec.budget.trial_hours
    begun = {record.assignment.enqueued for record in records.search}
    if any(wish.id not in begun for wish in read_enqueued(results.paths.enqueued)):
        return False
    planned_trials = [record for record in records.search if record.assignment.enqueued is None]
    num_refused = sum(is_refused_proposal(record.assignment) for record in planned_trials)
    is_whole = spec.search.algorithm == "grid"
    on_top = 0 if is_whole else num_on_top(num_refused, spec.budget.trials)
    if len(planned_trials) < plan.trials + plan.baselines + on_top and not is_spent:
        return False
    if spec.retrain is None:
        return True
    bounds, objectives = records.requirements, records.objectives
    chosen = select_finalists(records.search, spec.retrain.top_k, records.goal, bounds, objectives)
    planned = plan_retraining(chosen, spec.retrain.seeds, plan.max_epochs, spec.search.seed)
    tests = plan_tests(records.retrain) if spec.is_segmentation else []
    return _names(planned) <= _names(record.assignment for record in records.retrain) and _names(tests) <= _names(
        record.assignment for record in records.test
    )


def _names(assignments: Iterable[Assignment]) -> set[str]:
    return {assignment.name for assignment in assignments}


def _pixels(image: "Picture") -> "npt.NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    from segbench.final.evaluate import read_image

    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"image is {array.dtype} {array.shape}; give uint8 (H, W, 3), RGB")
    return array
