"""What fits on several nodes."""

import sys
from pathlib import Path

import pytest

from segbench.core.errors import UserError
from segbench.spec.schema import Budget, Resources
from segbench.tune.cluster import check_resources, growable_nodes, max_concurrent, own_paths

SMALL, LARGE = {"CPU": 3.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "resources", "limit", "can_grow", "expected"),
    [
        ([SMALL] * 3, Resources(cpu=2), None, False, 3),  # nine cores, but a trial cannot lie on two nodes
        ([SMALL, LARGE], Resources(cpu=1, gpu=1), None, False, 2),
        ([SMALL, LARGE], Resources(cpu=4), 5, False, 2),
        ([], Resources(cpu=4, gpu=1), 5, True, 5),  # none is there yet: five that wait make them come
        ([SMALL], Resources(cpu=1), None, True, 3),
    ],
)
def test_concurrency_is_what_fits_on_each_node(
    nodes: list[dict[str, float]], resources: Resources, limit: int | None, can_grow: bool, expected: int
) -> None:
    assert max_concurrent(nodes, resources, Budget(max_concurrent=limit), can_grow) == expected


def test_a_trial_must_fit_on_one_node() -> None:
    check_resources([SMALL, LARGE], Resources(cpu=8))
    with pytest.raises(UserError, match=r"resources\.cpu=9, but there are 8 CPUs on a node"):
        check_resources([SMALL, LARGE], Resources(cpu=9))


def test_installed_packages_are_not_put_before_the_standard_library_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "site-packages"  # as a .pth file adds it
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), str(shared)])
    paths = own_paths()
    assert str(tmp_path) in paths
    assert str(shared) not in paths


LEFT_BY_RAY_UP = """
head_node_type: head
available_node_types:
  head: {resources: {CPU: 96}, node_config: {}}
  none: {resources: {CPU: 64}, node_config: {}, max_workers: 0}
  gpu: {resources: {CPU: 4, GPU: 1}, node_config: {}, max_workers: 3}
"""


def test_what_may_come_is_what_the_cluster_file_on_the_head_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: None)
    assert growable_nodes() is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text(LEFT_BY_RAY_UP)
    assert growable_nodes() == [{"CPU": 4, "GPU": 1}]
