"""MLflow's database is there completely or not at all."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segbench.tracking.delivery import create_database

MAKE = """
import pathlib
from segbench.tracking.delivery import create_database
print(flush=True)
create_database(pathlib.Path({path!r}))
"""


@pytest.mark.slow
def test_a_kill_while_the_database_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    for delay_s in (0.3, 0.9):
        code = MAKE.format(path=str(database))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # imports are done, migrations begin
            time.sleep(delay_s)
            process.kill()
    create_database(database)
    client = MlflowClient(f"sqlite:///{database}")
    assert client.create_experiment("after")
    assert {experiment.name for experiment in client.search_experiments()} == {"after", "Default"}
