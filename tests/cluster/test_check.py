"""`segbench cluster check`: the shipped files are right, and planted mistakes are named with file, line and key."""

import re
import shlex
from pathlib import Path

import pytest
from buckets import serve_s3
from cityscapes_files import write_pair
from planted import CLUSTER_MISTAKES, SWEEP_MISTAKES

from segbench.cli import main
from segbench.cluster.check import check_cluster, check_packed
from segbench.core.errors import SpecError

CLUSTERS = ("local.yaml", "gpu.yaml", "gcp.yaml", "kuberay.yaml")
ON_ALL_NODES = "data.root=/shared/cityscapes"
OWN = "name: own\ntrain: {train}\nparameters:\n  x: {{min: 0.0, max: 1.0}}\n"


def message_of(cluster: str, sweep: str | None = None, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        check_cluster(Path("cluster") / cluster, Path(sweep) if sweep else None, overrides)
    return str(caught.value)


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("sweep", [None, "compare.yaml", "unet.yaml", "segformer.yaml", "quickstart.yaml"])
def test_the_shipped_files_are_right(cluster: str, sweep: str | None, own_machine: Path) -> None:
    overrides = [ON_ALL_NODES] if sweep not in (None, "quickstart.yaml") else []
    checked = check_cluster(Path("cluster") / cluster, Path("sweeps") / sweep if sweep else None, overrides)
    assert checked.file.max_nodes >= 3


def test_spot_instances_without_the_script_that_hears_the_notice_are_mentioned(own_machine: Path) -> None:
    path = Path("cluster/gpu.yaml")
    assert not [note for note in check_cluster(path).notes() if "drain_on_notice" in note]
    path.write_text(re.sub(r".*drain_on_notice.*\n", "", path.read_text()))
    assert [note for note in check_cluster(path).notes() if "drain_on_notice" in note]


def test_data_of_the_laptop_are_fetched_from_the_bucket(
    own_machine: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("cluster/gpu.yaml")
    path.write_text(path.read_text().replace("segbench-example/runs", "segbench-test/runs"))
    checked = check_cluster(path, Path("sweeps/compare.yaml"), ["data.root=photos", "data.limit=40"])
    command = (
        "segbench data pack sweeps/compare.yaml --set data.root=photos --set data.limit=40 --to s3://segbench-test/runs/"
        "packed"
    )
    assert [note for note in checked.notes() if f"once and where the pictures are: {command}" in note]
    with serve_s3() as store:
        for key, value in store.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(
            SpecError, match=r"--set data\.root=photos data\.root: 'photos' is a folder of this machine"
        ):
            list(check_packed(checked))
        for frame in range(20):
            write_pair(Path("photos"), "train" if frame % 4 else "val", f"city{frame % 4}", frame)
        monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        main(shlex.split(command)[1:])
        assert not list(check_packed(checked))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "is not known from here" in next(check_packed(checked))


@pytest.mark.parametrize("mistake", CLUSTER_MISTAKES)
def test_a_mistake_in_a_cluster_file_is_named_with_its_line(mistake: str, own_machine: Path) -> None:
    name, right, wrong, key, sentence = CLUSTER_MISTAKES[mistake]
    path = Path("cluster") / name
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    lines = message_of(name).splitlines()
    found = [line for line in lines if re.match(rf"cluster/{name}:\d+ {re.escape(key)}: ", line) and sentence in line]
    assert found, lines
    last = re.split(r"[.\[]", key)[-1].rstrip("]")
    if not last.isdecimal() and key != "file" and "~" not in key:
        number = int(found[0].split(":")[1].split()[0])
        assert re.search(rf"\b{re.escape(last)}\b", path.read_text().splitlines()[number - 1]), found[0]


@pytest.mark.parametrize("mistake", SWEEP_MISTAKES)
def test_a_sweep_that_cannot_run_on_the_cluster_is_named_with_its_key(mistake: str, own_machine: Path) -> None:
    cluster, override, key, sentence = SWEEP_MISTAKES[mistake]
    message = message_of(cluster, "sweeps/compare.yaml", ON_ALL_NODES, override)
    assert "\n" not in message, message
    assert f"--set {override.replace('me:hunter2', '***')} {key}" in message
    assert "hunter2" not in message
    assert sentence in message


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ("nowhere:train", "'nowhere' is neither among the files that are copied to the cluster"),
        ("mine:trian", "mine.py has no 'trian'; it has: train"),
        ("hypothesis:given", None),  # installed on the nodes too, by the lock
        ("mine:train", None),
    ],
)
def test_a_training_function_that_the_nodes_would_not_have(train: str, sentence: str | None, own_machine: Path) -> None:
    Path("mine.py").write_text(
        "raise SystemExit('is not run by a check')\n\n\ndef train(config, context):\n    yield {}\n"
    )
    Path("own.yaml").write_text(OWN.format(train=train))
    if sentence is None:
        check_cluster(Path("cluster/local.yaml"), Path("own.yaml"))
    else:
        message = message_of("local.yaml", "own.yaml")
        assert message.startswith("own.yaml:2 train: ")
        assert sentence in message


def test_mistakes_of_both_files_are_said_together(own_machine: Path) -> None:
    path = Path("cluster/local.yaml")
    path.write_text(path.read_text().replace("--num-gpus=0 ", ""))
    lines = message_of("local.yaml", "sweeps/compare.yaml").splitlines()
    assert [line.split(":")[0] for line in lines] == ["cluster/local.yaml", "sweeps/compare.yaml"]


CRD = """
spec:
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              properties:
                entrypoint: {type: string}
                backoffLimit: {type: integer}
"""


def test_a_rayjob_is_held_strictly_against_the_crd_of_its_cluster(own_machine: Path) -> None:
    Path("crd.yaml").write_text(CRD)
    with pytest.raises(SpecError) as caught:
        check_cluster(Path("cluster/kuberay.yaml"), crd=Path("crd.yaml"))
    keys = {line.split()[1] for line in str(caught.value).splitlines()}
    assert keys == {
        f"spec.{key}:"
        for key in ("submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec")
    }


def test_what_a_cluster_can_hold_at_a_time(own_machine: Path) -> None:
    def places(cluster: str, *overrides: str) -> int | None:
        return check_cluster(Path("cluster") / cluster, Path("sweeps/compare.yaml"), [ON_ALL_NODES, *overrides]).places

    assert places("gpu.yaml") == 2 * 4 + 6 * 1, "two machines with four GPUs, and six of eight with one"
    assert places("gpu.yaml", "resources.gpu=2") == 2 * 2
    assert places("kuberay.yaml") == 8
    assert places("local.yaml") is None, "only the machines know"
