"""Writes and runs docs/notebook.ipynb, the tour of the Python API: `python docs/notebook.py`, a minute on two cores.

Its cells stand here as text: a line `# %%` begins a cell of code, `# %% [markdown]` one of text. A test runs them with
both executors and holds the notebook to this text.
"""

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FILE = Path(__file__).with_suffix(".ipynb")
SCREENSHOT = "![The report: what won, how sure, the leaderboard](images/report.png)"

CELLS = """
# %% [markdown]
# segbench from Python

A sweep from its first trial to a picture with its classes, on street scenes that a program draws: nothing is
downloaded. All names are explained in [api.md](api.md), all columns in [results.md](results.md), all settings in
[spec.md](spec.md).

# %%
import os

import segbench

executor = os.environ.get("SEGBENCH_EXECUTOR", "local")  # or "ray": processes on this machine or a cluster

# %% [markdown]
## Run a sweep

`segbench.run` takes a sweep file, the name of one that comes with segbench (`segbench.run("quickstart")`), or its
content as nested mappings. The second argument changes it. The last line of a cell shows a result as its leaderboard.

# %%
sweep = {
    "name": "tour",
    "data": {"dataset": "streets", "size": [48, 96], "num_images": [40, 10, 10]},
    "training": {"model": "unet", "depth": 3, "batch_size": 4},
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 2e-2},
        "width": {"values": [4, 8]},
        "loss": {"values": ["ce", "ce+dice"]},
    },
    "baselines": [{"name": "plain", "parameters": {"lr": 1e-3, "width": 8, "loss": "ce"}}],
    "scheduler": {"max_epochs": 8, "grace_epochs": 2, "reduction_factor": 2},
    "retrain": {"top_k": 1, "seeds": 2},
    "resources": {"cpu": 1, "gpu": 0},
    "mlflow": {"enabled": False},
}
result = segbench.run(sweep, {"budget.trials": 4, "budget.max_concurrent": 1}, executor=executor)
result

# %%
for sentence in result.conclusion:
    print(sentence)

# %% [markdown]
## Tables

Three DataFrames: a row per finalist, per trial, per epoch.

# %%
result.leaderboard[["rank", "name", "val/miou mean", "val/miou std", "test/miou mean", "parameters", "params.lr"]]

# %%
searched = result.trials.query("stage == 'search'")
searched[["name", "state", "reason", "epochs", "best_score", "params.lr", "params.width", "params.loss"]]

# %%
curves = result.epochs.query("stage == 'search'").pivot(index="epoch", columns="name", values="val/miou")
curves.astype(float).round(3)

# %% [markdown]
Every chart of the report is a picture here; `result.charts` has their names, `.save("curves.svg")` writes one.

# %%
result.chart("learning-curves")

# %% [markdown]
## The best model

# %%
result.best.name, round(result.best.score, 3), dict(result.best.params)

# %% [markdown]
`predict` takes a numpy array, a PIL image or a path, of any size, and returns the class of each pixel. Here: a picture
of the test split, the truth, the prediction.

# %%
import numpy as np
from PIL import Image

from segbench.data import open_data

data = open_data(result.spec.data)
image, labels = data.test.images[0], data.test.labels[0]
model = result.best.model()
classes = result.best.predict(image)
row = np.hstack([image, model.colorize(model.lut[labels]), model.colorize(classes)])
Image.fromarray(row).resize((4 * row.shape[1], 4 * row.shape[0]), Image.Resampling.NEAREST)

# %%
truth = model.lut[labels]
counted = truth != 255
print(f"{(classes == truth)[counted].mean():.0%} of the pixels; classes: {', '.join(model.groups)}")

# %% [markdown]
## The report

`result.show()` puts the whole report below the cell, in a frame of its own; `result.report()` returns the file.

# %%
result.show()

# %% [markdown]
## A training of your own

An objective is a generator that yields its metrics once per epoch. With `executor="local"` it may be a function of the
notebook; Ray's processes need one that they can import (`train: module:function`).


# %%
def train(config, context):
    for epoch in range(context.epoch + 1, context.max_epochs + 1):
        yield {"score": 1 - (config["x"] - 0.3) ** 2 - 0.5**epoch}


own = {
    "name": "own",
    "metric": {"name": "score", "goal": "maximize"},
    "parameters": {"x": {"min": 0.0, "max": 1.0}},
    "scheduler": {"max_epochs": 4},
    "budget": {"trials": 6},
    "mlflow": {"enabled": False},
}


# %% [markdown]
## Watch it, interrupt it, continue it

Observers hear of every stage and of every report of a trial. This one looks at the running sweep from outside, as
another notebook could at any time, and then does what the stop button does: it raises KeyboardInterrupt.


# %%
class Impatient:
    def on_stage(self, stage, num_trials, max_epochs):
        pass

    def on_trial(self, record, stage):
        if record.number == 3:
            print(segbench.load("runs/own"))
            raise KeyboardInterrupt


try:
    segbench.run(own, executor="local", objective=train, observers=[Impatient()])
except KeyboardInterrupt:
    print("interrupted")
segbench.load("runs/own").status

# %% [markdown]
Nothing that was recorded is lost. The same call continues, with the decisions that it would have made without the
interruption.

# %%
segbench.run(own, executor="local", objective=train)
"""


def make() -> NotebookNode:
    """Return the notebook without outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, part in enumerate(re.split(r"^# %%", CELLS, flags=re.MULTILINE)[1:]):
        kind, _, text = part.partition("\n")
        new = nbformat.v4.new_markdown_cell if "markdown" in kind else nbformat.v4.new_code_cell
        notebook.cells.append(new(text.strip(), id=f"cell-{number:02d}"))
    return notebook


def execute(notebook: NotebookNode, folder: Path, executor: str = "local") -> None:
    """Run the cells in ``folder``; an exception in a cell is raised here.

    Args:
        notebook: gets the outputs.
        folder: where ``runs/`` is made.
        executor: of the sweep in the first cells.
    """
    quiet = "ignore:IProgress not found"  # tqdm misses ipywidgets, and nobody else does
    env = {**os.environ, "SEGBENCH_EXECUTOR": executor, "IPYTHONDIR": str(folder / "ipython"), "PYTHONWARNINGS": quiet}
    client = NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=env)


def slim(notebook: NotebookNode) -> None:
    """Leave out what a repository should not hold.

    That is the report, megabytes of which no diff can be read: a picture of one stands in its place.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)
        if cell.cell_type == "code" and ".show()" in cell.source:
            cell.outputs = []
            following = notebook.cells[notebook.cells.index(cell) + 1]
            following.source = f"{SCREENSHOT}\n\n{following.source}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        made = make()
        execute(made, Path(name))
    slim(made)
    FILE.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
