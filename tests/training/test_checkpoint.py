"""Saving and loading state: everything comes back, and a crash leaves the old or the new."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segbench.core import paths
from segbench.core.errors import CheckpointError
from segbench.training import checkpoint


def state_of(value: float) -> dict[str, Any]:
    return {"value": value, "weights": {"a": torch.full((3,), value)}}


def assert_same(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert torch.equal(left, right)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert type(left) is type(right)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, float) and math.isnan(left):
        assert math.isnan(right)
    else:
        assert left == right
        assert type(left) is type(right)


def test_nested_state_comes_back_equal_with_types_and_key_order(tmp_path: Path) -> None:
    state = {
        "scalars": [1, 2**70, -0.1, 1e-300, True, None, "text ü", math.nan, math.inf, -math.inf],
        "map": {0: {"step": 3}, 1.5: "x", None: (), True: [], "$map": 1, "": 2},
        "dollar": {"$tensor": "not a tensor"},
        "betas": (0.9, 0.999),
        "empty": {},
        "tensors": [torch.tensor(3.0), torch.zeros(0, 4), torch.arange(6).view(2, 3)],
        "array": np.arange(5, dtype=np.uint16),
    }
    checkpoint.save(state, tmp_path / "last")
    assert_same(state, checkpoint.load(tmp_path / "last"))


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool],
    ids=str,
)
def test_tensors_of_any_dtype_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    checkpoint.save({"t": tensor}, tmp_path)
    assert_same(tensor, checkpoint.load(tmp_path)["t"])


def test_views_and_shared_tensors_are_saved_on_their_own(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"base": base, "same": base, "view": base.t(), "row": base[1], "a": {"b": base}, "a/b": base + 1}
    checkpoint.save(state, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert_same(state, loaded)
    assert loaded["view"].is_contiguous()
    loaded["row"].zero_()
    assert_same(base, loaded["base"])


def test_numpy_scalars_become_python_scalars(tmp_path: Path) -> None:
    checkpoint.save({"f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True), "n": np.float64("nan")}, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert [type(value) for value in loaded.values()] == [float, int, bool, float]


def test_optimizer_state_continues(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.99))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save({"optimizer": optimizer.state_dict()}, tmp_path)
    assert_same(optimizer.state_dict(), checkpoint.load(tmp_path)["optimizer"])


def test_state_without_tensors_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from segbench.training import checkpoint\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "checkpoint.save({'x': [1, 2.5, float('nan')], 3: 'three'}, folder)\n"
        "assert checkpoint.load(folder)[3] == 'three'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_state_json_is_strict_json(tmp_path: Path) -> None:
    checkpoint.save({"x": math.nan, "y": {1: math.inf}}, tmp_path)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    json.loads((tmp_path / "state.json").read_text(), parse_constant=refuse)


def test_what_cannot_be_saved_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state at /a/1/b is a set"):
        checkpoint.save({"a": [0, {"b": {1, 2}}]}, tmp_path)
    with pytest.raises(TypeError, match=r"state at /a is a device"):
        checkpoint.save({"a": torch.device("cpu")}, tmp_path)
    with pytest.raises(TypeError, match=r"key of type tuple"):
        checkpoint.save({"a": {(1, 2): 3}}, tmp_path)
    assert not checkpoint.exists(tmp_path)


def test_the_old_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        checkpoint.save(state_of(value), tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert_same(state_of(3.0), checkpoint.load(tmp_path))
    checkpoint.save({"none": 0}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_remove_deletes_the_checkpoint_but_no_other_file(tmp_path: Path) -> None:
    checkpoint.save(state_of(1.0), tmp_path / "last")
    checkpoint.remove(tmp_path / "last")
    assert not (tmp_path / "last").exists()
    checkpoint.remove(tmp_path / "last")
    checkpoint.save(state_of(1.0), tmp_path / "last")
    (tmp_path / "last" / "notes.txt").write_text("mine")
    checkpoint.remove(tmp_path / "last")
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["notes.txt"]


def die_at_step(step: int, action: Any) -> bool:
    """Run ``action`` in a forked process that is killed at its ``step``-th call into the file system.

    Returns:
        Whether it was killed (False: it had fewer steps and finished).
    """
    child = os.fork()
    if child == 0:
        count = 0

        def deadly(function: Any, is_before: bool) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                is_last = count == step
                if is_last and is_before:
                    os._exit(9)
                result = function(*args, **kwargs)
                if is_last:
                    os._exit(9)
                return result

            return call

        import safetensors.torch

        for before in (True, False):  # before and after each call
            os.fsync = deadly(os.fsync, before)
            Path.replace = deadly(Path.replace, before)  # type: ignore[method-assign]
            Path.unlink = deadly(Path.unlink, before)  # type: ignore[method-assign]
            Path.mkdir = deadly(Path.mkdir, before)  # type: ignore[method-assign]
            safetensors.torch.save_file = deadly(safetensors.torch.save_file, before)
            paths.tempfile.mkstemp = deadly(paths.tempfile.mkstemp, before)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_killed_at_any_step_the_old_or_the_new_state_is_readable_and_saving_goes_on(tmp_path: Path) -> None:
    seen = set()
    step = 1
    while True:
        folder = tmp_path / str(step)
        checkpoint.save(state_of(1.0), folder)
        was_killed = die_at_step(step, lambda folder=folder: checkpoint.save(state_of(2.0), folder))
        loaded = checkpoint.load(folder)
        assert_same(state_of(loaded["value"]), loaded)
        seen.add(loaded["value"])
        checkpoint.save(state_of(3.0), folder)
        assert_same(state_of(3.0), checkpoint.load(folder))
        if not was_killed:
            break
        step += 1
    assert seen == {1.0, 2.0}
    assert step > 20


def test_killed_at_the_first_save_there_is_no_checkpoint_or_a_whole_one(tmp_path: Path) -> None:
    step = 1
    folder = tmp_path / "1"
    while die_at_step(step, lambda folder=folder: checkpoint.save(state_of(1.0), folder)):
        if checkpoint.exists(folder):
            assert_same(state_of(1.0), checkpoint.load(folder))
        step += 1
        folder = tmp_path / str(step)


def test_killed_at_any_step_a_model_folder_holds_weights_and_card_of_one_epoch(tmp_path: Path) -> None:
    step = 1
    was_killed = True
    while was_killed:
        folder = tmp_path / str(step)
        checkpoint.save_model(folder, {"w": torch.tensor(1.0)}, {"epoch": 1})
        was_killed = die_at_step(
            step, lambda folder=folder: checkpoint.save_model(folder, {"w": torch.tensor(2.0)}, {"epoch": 2})
        )
        weights, card = checkpoint.load_model_files(folder)
        assert weights["w"].item() == card["epoch"]
        step += 1


@pytest.mark.parametrize("length", [0, 1, 20, -1])
@pytest.mark.parametrize("name", ["state.json", "tensors-0.safetensors"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, length: int) -> None:
    checkpoint.save(state_of(1.0), tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:length])
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(tmp_path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    checkpoint.save(state_of(1.0), tmp_path)
    path = tmp_path / "tensors-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"tensors-0\.safetensors: damaged"):
        checkpoint.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json: no such file"):
        checkpoint.load(tmp_path / "nothing")
    checkpoint.save(state_of(1.0), tmp_path)
    (tmp_path / "tensors-0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"tensors-0\.safetensors: no such file"):
        checkpoint.load(tmp_path)


def test_a_damaged_checkpoint_can_be_overwritten(tmp_path: Path) -> None:
    checkpoint.save(state_of(1.0), tmp_path)
    (tmp_path / "state.json").write_text("{")
    checkpoint.save(state_of(2.0), tmp_path)
    assert_same(state_of(2.0), checkpoint.load(tmp_path))


def test_other_json_and_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path)
    (tmp_path / "state.json").write_text('{"format": 9, "tensors": null, "state": {}}')
    with pytest.raises(CheckpointError, match="format 9"):
        checkpoint.load(tmp_path)


def test_a_model_folder_has_weights_and_a_readable_card(tmp_path: Path) -> None:
    weights = {"a": torch.ones(2, 2), "b": torch.tensor(3)}
    checkpoint.save_model(tmp_path / "best", weights, {"groups": ["sky"], "epoch": 3})
    loaded, card = checkpoint.load_model_files(tmp_path / "best")
    assert_same(weights, loaded)
    assert card == {"groups": ["sky"], "epoch": 3}
    assert json.loads((tmp_path / "best" / "config.json").read_text()) == card


def test_a_foreign_or_damaged_model_folder_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        checkpoint.load_model_files(tmp_path)
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no card"):
        checkpoint.load_model_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        checkpoint.load_model_files(tmp_path)
