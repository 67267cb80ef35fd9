"""What a sweep found, for Python and notebooks: tables, the best configuration and its model, the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.errors import StateError, UserError
from segbench.core.paths import SweepPaths
from segbench.core.records import Params
from segbench.spec.load import LoadedSpec
from segbench.spec.schema import SweepSpec
from segbench.sweep.folder import is_running, open_sweep

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from PIL import Image

    from segbench.final.model import LoadedModel
    from segbench.results.folder import Results

    Picture = str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Best:
    """The first row of the leaderboard."""

    name: str
    """Of the search trial or baseline."""
    score: float
    """Mean best validation score over its seeds; the search's score where nothing was retrained."""
    params: Params
    """What was searched, by dotted name."""
    settings: Mapping[str, Any]
    """Everything that it was trained with: all settings of the training function."""
    folder: Path | None
    """Its weights (``model.safetensors`` and ``config.json``); None for a training function that keeps no model."""
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


@dataclass(frozen=True)
class SweepResult:
    """A sweep's folder as it was when it was loaded; tables are made when they are first asked for.

    Nothing of it imports torch or Ray but :meth:`Best.model` and :meth:`Best.predict`.

    Examples:
        >>> import segbench
        >>> result = segbench.load("runs/quickstart")
        >>> result.status
        'finished'
        >>> result.leaderboard[["rank", "name", "state"]].iloc[0].tolist()
        [1, 'trial-0001', 'COMPLETE']
        >>> result.trials["val/miou" if "val/miou" in result.trials else "best_score"].max() <= 1
        True
        >>> result.epochs[["stage", "number", "epoch", "val/miou"]].dtypes.astype(str).tolist()
        ['string', 'Int64', 'Int64', 'Float64']
        >>> sorted(result.best.params)
        ['lr', 'width']
        >>> picture = result.best.model().size
        >>> import numpy as np
        >>> result.best.predict(np.zeros((*picture, 3), np.uint8)).shape == picture
        True
    """

    paths: SweepPaths
    """Every file of the folder."""
    loaded: LoadedSpec = field(repr=False)

    @property
    def spec(self) -> SweepSpec:
        """The sweep file as resolved."""
        return self.loaded.spec

    @cached_property
    def status(self) -> Literal["running", "finished", "unfinished"]:
        """Whether a process runs it now, it ran to its end, or the same call would continue it."""
        if is_running(self.paths):
            return "running"
        records = self._results.records
        expected: tuple[Literal["search", "retrain", "test"], ...] = ("search",)
        if self.spec.retrain is not None:
            expected = ("search", "retrain", "test") if self.spec.is_segmentation else ("search", "retrain")
        ended = all(record.state.is_finished for _, record in records)
        return "finished" if ended and all(records[stage] for stage in expected) else "unfinished"

    @cached_property
    def leaderboard(self) -> "pd.DataFrame":
        """A row per finalist, best first; the columns of ``leaderboard.csv`` (docs/results.md), typed."""
        return self._results.board.convert_dtypes()

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A row per trial of every stage; the columns of ``trials.parquet`` (docs/results.md), typed."""
        from segbench.results.parquet import to_frame, trials_parquet

        return to_frame(trials_parquet(self._results.records))

    @cached_property
    def epochs(self) -> "pd.DataFrame":
        """A row per epoch of every trial; the columns of ``metrics.parquet`` (docs/results.md), typed."""
        from segbench.results.parquet import metrics_parquet, to_frame

        return to_frame(metrics_parquet(self._results.records))

    @cached_property
    def best(self) -> Best:
        """The first row of the leaderboard.

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

    def show(self, height: int = 900) -> None:
        """Show the report: within a notebook, else in the browser.

        Args:
            height: of its frame in a notebook, in pixels.
        """
        file = self.report()
        if not _in_notebook():
            import webbrowser

            webbrowser.open(file.absolute().as_uri())
            return
        from html import escape

        from IPython.display import HTML, display

        page = escape(file.read_text(encoding="utf-8"))
        display(HTML(f'<iframe srcdoc="{page}" width="100%" height="{height}" style="border: 0"></iframe>'))

    def _repr_html_(self) -> str:
        """Return the leaderboard's main columns as HTML: what a notebook shows of a result."""
        from segbench.results.tables import summarize

        table = summarize(self._results.board)
        return str(table.to_html(index=False, border=0)) if len(table.columns) else "<p>no trials yet</p>"

    @cached_property
    def _results(self) -> "Results":
        from segbench.results.folder import read_results

        return read_results(self.paths, self.spec)


def load(place: str | Path) -> SweepResult:
    """Return what a sweep found: a finished one, one that runs, or one that broke off.

    Args:
        place: its folder, such as ``runs/quickstart``, or its address in a bucket, which is brought here first.

    Raises:
        StateError: there is no sweep.

    Examples:
        >>> import segbench
        >>> segbench.load("runs/nothing")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        segbench.core.errors.StateError: runs/nothing is not a sweep's folder (no sweep.yaml in it); give one ...
    """
    return SweepResult(*open_sweep(str(place)))


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


def _in_notebook() -> bool:
    import sys

    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
