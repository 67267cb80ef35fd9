"""THE WORDS: the ``segbench`` command, one short function per verb; it wires words, not the sweep.

May import every room, and does so inside the verb that needs it: ``segbench schema`` does not wait for torch, Ray and
MLflow. Imported by the console script and by ``python -m``, by nothing else.
"""

import gc
import shlex
import sys
from collections.abc import Sequence

import click

from segbench.cli import data, models, results, sweep
from segbench.cluster.verbs import cluster_group
from segbench.core.errors import SegbenchError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="segbench", message="%(version)s")
def cli() -> None:
    """Hyperparameter sweeps for semantic segmentation: one YAML file in, an honest leaderboard out."""


for verb in (
    *(sweep.sweep, sweep.plan, sweep.enqueue, sweep.sweeps, sweep.schema),
    *(results.leaderboard, results.report, results.compare, results.export, results.status, results.mlflow_group),
    *(models.predict, models.evaluate, data.data_group, cluster_group),
):
    cli.add_command(verb)


def main(arguments: Sequence[str] | None = None, program: str = "segbench") -> None:
    """Run the command line; exits with 0, 1 (failed), 2 (the user's mistake) or 130 (interrupted).

    Args:
        arguments: the words after the program; None: those that the process was started with.
        program: how the user called it, for the command that continues a stopped sweep.
    """
    gc.set_threshold(50_000)  # imports make objects that stay: the default looks at them again and again
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        cli.main(args=words, prog_name="segbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SegbenchError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        command = f"{program} {shlex.join(sys.argv[1:])}"
        click.echo(f"\nstopped; nothing is lost. The same command continues:\n  {command}", err=True)
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # else Python looks at every object once more before it ends: a second, with these libraries
