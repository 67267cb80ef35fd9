"""Verbs that use a trained model: predict and evaluate."""

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--images", required=True, type=click.Path(path_type=Path), help="Folder of PNG or JPEG pictures.")
@click.option("--out", "output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--device", default="cpu", show_default=True)
def predict(checkpoint: Path, images: Path, output: Path, device: str) -> None:
    """Segment pictures with the model in CHECKPOINT: label-id and colour PNGs."""
    from segbench.final.evaluate import predict_folder

    written = predict_folder(checkpoint, images, output, device)
    click.echo(f"{len(written)} label maps in {output}")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder in the Cityscapes layout, or a sweep file."
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--device", default="cpu", show_default=True)
def evaluate(checkpoint: Path, data: Path, split: str, device: str) -> None:
    """Print the metrics of the model in CHECKPOINT on a split of a data set."""
    from segbench.final.evaluate import evaluate_folder
    from segbench.final.model import load_model
    from segbench.terminal.tables import print_metrics

    if data.is_dir():
        from segbench.core.config import DataConfig

        size = load_model(checkpoint).size
        config = DataConfig(dataset="cityscapes", root=str(data), size=size, split="official")
    else:
        from segbench.spec.load import load_spec

        config = load_spec(data).spec.data
    scores = evaluate_folder(checkpoint, config, split, device)
    print_metrics(scores.metrics)
