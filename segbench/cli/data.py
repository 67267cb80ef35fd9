"""Verbs for data sets."""

from dataclasses import replace

import click


@click.group("data")
def data_group() -> None:
    """Data sets."""


@data_group.command("pack")
@click.argument("file")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--to", metavar="ADDRESS", help="Put the packed set there, too: s3://bucket/packed, or a shared folder.")
def data_pack(file: str, overrides: tuple[str, ...], to: str | None) -> None:
    """Check and pack the data set of the sweep in FILE; done by the first use otherwise.

    With --to, or where the file names a bucket (storage, data.packed), the packed set is put there too: the nodes of a
    cluster fetch it, and need no pictures of their own.
    """
    from segbench.core.ready import find_sweep
    from segbench.data import check_data, open_data, share_data
    from segbench.spec.load import load_spec
    from segbench.sweep.run import check_address

    check_address("--to", to)
    config = load_spec(find_sweep(file), overrides).spec.data
    check_data(replace(config, packed=None))
    data = open_data(replace(config, packed=None))
    sizes = ", ".join(f"{len(getattr(data, split).names)} {split}" for split in ("train", "val", "test"))
    click.echo(f"{sizes} images; groups: {', '.join(data.groups)}")
    shared = share_data(replace(config, packed=to or config.packed))
    if shared.config.packed:
        how = "uploaded to" if shared.is_uploaded else "is there already, nothing was uploaded:"
        click.echo(f"packed set {how} {shared.config.packed}")
