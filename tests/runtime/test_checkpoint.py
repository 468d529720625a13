"""Checkpoints under kills, full disks, damage and forgery; every check is on bits."""

import json
import os
import pickle
import random
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import killed_at, start_python
from torch import Tensor

from pvnas.errors import UserError
from pvnas.runtime.checkpoint import (
    MANIFEST,
    STATE,
    TENSORS,
    _manifest,
    digest,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)


def tensors_of(step: int, n: int = 6) -> dict[str, Tensor]:
    """Return small tensors of several kinds that depend on the step."""
    made: dict[str, Tensor] = {f"layer.{i}/weight": torch.full((3, 4), float(step)) + i for i in range(n)}
    made["count"] = torch.tensor(step)
    made["half"] = torch.tensor([step, -0.0, float("nan"), float("inf")]).bfloat16()
    made["none"] = torch.zeros(0, 3)
    made["flags"] = torch.tensor([True, False])
    return made


def save(folder: Path, step: int) -> Path:
    """Save the checkpoint of a step."""
    return save_checkpoint(folder, f"step_{step}", tensors_of(step), {"step": step, "lr": 0.1 + 0.2})


def loaded_step(folder: Path) -> int:
    """Load and return the step of the checkpoint, which must be complete, bit for bit."""
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    step = checkpoint.state["step"]
    assert checkpoint.name == f"step_{step}"
    assert checkpoint.state == {"step": step, "lr": 0.1 + 0.2}
    assert digest(checkpoint.tensors, None) == digest(tensors_of(step), None)
    return step


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(os.listdir(folder))


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    assert load_checkpoint(tmp_path) is None


def test_the_newest_two_stay_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    for step in (10, 11, 9, 9):  # a step that comes again, and an earlier one: the last saved counts, no clock
        save(tmp_path / "new" / "deep", step)
        assert loaded_step(tmp_path / "new" / "deep") == step
    assert names(tmp_path / "new" / "deep") == ["000003-step_9", "000004-step_9"]


def test_layout_in_memory_and_shared_memory_do_not_matter(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    saved = {"a": weight, "b": weight[:, 1], "c": weight.detach()}
    save_checkpoint(tmp_path, "x", saved, {})
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert digest(checkpoint.tensors, None) == digest(saved, None)
    checkpoint.tensors["a"].add_(1)  # writable, and nobody else's
    assert torch.equal(checkpoint.tensors["c"], weight)


def test_bad_names_and_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    for name in ("", "a/b", "../x", "a b"):
        with pytest.raises(ValueError, match="name"):
            save_checkpoint(tmp_path, name, {}, {})
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path, "x", {}, {"loss": float("nan")})
    assert names(tmp_path) == []


# ---- kills


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_kill_at_every_call_of_a_save_leaves_a_complete_checkpoint(tmp_path: Path, before: int) -> None:
    seen, call = set(), 1
    while True:
        folder = tmp_path / str(call)
        for step in range(1, before + 1):
            save(folder, step)
        if not killed_at(call, lambda folder=folder: save(folder, before + 1)):
            break
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            checkpoint = load_checkpoint(folder)
            step = loaded_step(folder) if checkpoint else 0
        assert step in (before, before + 1)
        seen.add(step)
        assert all(name[:6].isdigit() for name in (names(folder) if folder.exists() else []))
        save(folder, before + 1)  # the run goes on
        assert loaded_step(folder) == before + 1
        assert len(names(folder)) <= 2
        call += 1
    assert seen == {before, before + 1}
    assert call > 15


def test_sigkill_of_a_process_that_saves_in_a_loop(tmp_path: Path) -> None:
    """Whatever the process has called saved is there after the kill, and nothing is there by half."""
    code = """
        import sys
        from pathlib import Path
        import torch
        from pvnas.runtime.checkpoint import load_checkpoint, save_checkpoint
        torch.set_num_threads(1)
        folder = Path(sys.argv[1])
        last = load_checkpoint(folder)
        step = last.state["step"] if last else 0
        while True:
            step += 1
            tensors = {f"t{i}": torch.full((50, 50), float(step)) for i in range(200)}
            save_checkpoint(folder, f"s{step}", tensors, {"step": step})
            print(step)
    """
    chance, promised = random.Random(0), 0
    for _ in range(2):
        process = start_python(code, tmp_path)
        assert process.stdout is not None
        assert int(process.stdout.readline()) > promised
        time.sleep(0.2 + chance.random() * 0.2)
        process.kill()
        output, errors = process.communicate()
        assert errors == ""
        promised = max(int(line) for line in output.split("\n") if line.endswith(("0", *"123456789")))
        checkpoint = load_checkpoint(tmp_path)
        assert checkpoint is not None
        assert checkpoint.state["step"] in (promised, promised + 1)
        assert len(checkpoint.tensors) == 200
        assert all(bool((t == checkpoint.state["step"]).all()) for t in checkpoint.tensors.values())
        assert all(name[:6].isdigit() for name in names(tmp_path))
        promised = checkpoint.state["step"]


def test_a_reader_leaves_a_running_save_alone(tmp_path: Path) -> None:
    """`pvnas digest` may look at a run that is just saving: it must not take the half-written folder for a stray."""
    save(tmp_path, 1)
    code = """
        import os, sys
        from pathlib import Path
        from pvnas.runtime.files import write_folder
        real = os.rename
        def wait(a, b):
            print("writing"); sys.stdin.readline(); real(a, b)
        os.rename = wait
        write_folder(Path(sys.argv[1]) / "000002-late", {"x": b"1"})
    """
    process = start_python(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert loaded_step(tmp_path) == 1
    _, errors = process.communicate("go\n", timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert names(tmp_path) == ["000001-step_1", "000002-late"]


# ---- damage


def flip(path: Path, byte: int, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("file", [TENSORS, STATE, MANIFEST])
def test_a_flipped_bit_in_any_byte_is_noticed_and_the_previous_checkpoint_used(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    for byte in range(path.stat().st_size):
        flip(path, byte, byte % 8)
        with pytest.warns(RuntimeWarning, match="000002-step_2: .*going on from 000001"):
            assert loaded_step(tmp_path) == 1
        flip(path, byte, byte % 8)
    assert loaded_step(tmp_path) == 2


def truncated(path: Path) -> None:
    """Cut the tensors in half."""
    os.truncate(path / TENSORS, (path / TENSORS).stat().st_size // 2)


def emptied(path: Path) -> None:
    """Empty the tensors."""
    os.truncate(path / TENSORS, 0)


def without_manifest(path: Path) -> None:
    """Remove the manifest."""
    (path / MANIFEST).unlink()


def without_tensors(path: Path) -> None:
    """Remove the tensors."""
    (path / TENSORS).unlink()


def with_tensors_that_a_disk_cannot_read(path: Path) -> None:
    """Put a file there that opens, and fails when it is read (on Linux)."""
    (path / TENSORS).unlink()
    (path / TENSORS).symlink_to("/proc/self/mem")


def with_anothers_tensors(path: Path) -> None:
    """Put the tensors of another checkpoint there."""
    other = save(path.parent.parent / "other", 7)
    shutil.copy(other / TENSORS, path / TENSORS)


def with_anothers_everything(path: Path) -> None:
    """Put all files of another checkpoint there."""
    other = save(path.parent.parent / "other", 7)
    shutil.rmtree(path)
    shutil.copytree(other, path)


def turned_into_a_file(path: Path) -> None:
    """Put a file in the place of the folder."""
    shutil.rmtree(path)
    path.write_bytes(b"x")


DAMAGES = [
    truncated,
    emptied,
    without_manifest,
    without_tensors,
    with_tensors_that_a_disk_cannot_read,
    with_anothers_tensors,
    with_anothers_everything,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_falls_back_with_a_warning_and_without_a_valid_one_is_an_error(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "run"
    first, second = save(folder, 1), save(folder, 2)
    damage(second)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert loaded_step(folder) == 1
    damage(first)
    with pytest.raises(UserError, match="no checkpoint there is valid"):
        load_checkpoint(folder)
    assert names(folder) == ["000001-step_1", "000002-step_2"]  # nothing of the user's is thrown away


@pytest.mark.parametrize("damage", [*DAMAGES, turned_into_a_file])
def test_after_damage_the_next_save_keeps_the_valid_one(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "run"
    save(folder, 1)
    damage(save(folder, 2))
    save(folder, 3)
    assert names(folder) == ["000001-step_1", "000003-step_3"]
    truncated(folder / "000003-step_3")
    with pytest.warns(RuntimeWarning):
        assert loaded_step(folder) == 1


# ---- the full disk


def test_a_full_disk_leaves_the_old_checkpoint_and_a_clear_error(tmp_path: Path) -> None:
    checkpoints, metrics = tmp_path / "checkpoints", tmp_path / "metrics.jsonl"
    save(checkpoints, 1)
    metrics.write_text('{"epoch": 1}\n' * 300)  # 3900 bytes
    before = metrics.read_bytes()
    (tmp_path / "file").write_text("old")
    code = """
        import resource, sys
        from pathlib import Path
        import torch
        from pvnas.errors import UserError
        from pvnas.runtime.checkpoint import save_checkpoint, save_tensors
        from pvnas.runtime.files import write_atomic
        from pvnas.training.log import append_metrics
        folder = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        big = {"x": torch.zeros(5000)}
        for action in (
            lambda: save_checkpoint(folder / "checkpoints", "step_2", big, {"step": 2}),
            lambda: write_atomic(folder / "file", b"new" * 2000),
            lambda: save_tensors(folder / "file", big),
            lambda: append_metrics(folder / "metrics.jsonl", {"epoch": "x" * 500}),
        ):
            try:
                action()
                print("written")
            except UserError as error:
                print(error)
        save_checkpoint(folder / "checkpoints", "small", {"x": torch.zeros(5)}, {"step": 3})
    """
    output, errors = start_python(code, tmp_path).communicate(timeout=60)
    assert errors == ""
    lines = output.splitlines()
    assert len(lines) == 4
    assert all("cannot be written" in line and "free some space" in line for line in lines), lines
    assert metrics.read_bytes() == before
    assert (tmp_path / "file").read_text() == "old"
    assert names(checkpoints) == ["000001-step_1", "000002-small"]  # it goes on when there is space again
    assert names(tmp_path) == ["checkpoints", "file", "metrics.jsonl"]
    shutil.rmtree(checkpoints / "000002-small")
    assert loaded_step(checkpoints) == 1


# ---- forgery


class Payload:
    """Makes a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def forged(folder: Path, tensors: bytes, state: bytes) -> None:
    """Write a checkpoint with these contents and hashes that fit them."""
    path = folder / "000001-x"
    path.mkdir(parents=True)
    files = {TENSORS: tensors, STATE: state}
    for name, content in {**files, MANIFEST: _manifest("x", files)}.items():
        (path / name).write_bytes(content)


def crafted_tensors(tmp_path: Path) -> list[bytes]:
    """Return contents that are no tensors: a pickle, headers that lie, nothing."""
    headers = [
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 10**15]}},
        {"x": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 8]}},
        {"x": {"dtype": "os.system", "shape": [2], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    ]
    texts = [json.dumps(header).encode() for header in headers]
    lying = [struct.pack("<Q", len(text)) + text + bytes(8) for text in texts]
    return [pickle.dumps(Payload(tmp_path / "hit")), struct.pack("<Q", 2**63) + b"{}", b"", *lying]


def test_crafted_tensors_execute_nothing_and_are_one_line_errors(tmp_path: Path) -> None:
    for number, content in enumerate(crafted_tensors(tmp_path)):
        folder = tmp_path / str(number)
        forged(folder, content, b"{}")
        with pytest.raises(UserError, match="not a safetensors file") as error:
            load_checkpoint(folder)
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="not a safetensors file"):
            load_tensors(folder / "000001-x" / TENSORS)
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("state", [b"", b"[]", b"[" * 100_000, b"\xff", b"1" * 5000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_crafted_state_is_a_one_line_error(tmp_path: Path, state: bytes) -> None:
    good = save(tmp_path / "good", 1)
    forged(tmp_path / "bad", (good / TENSORS).read_bytes(), state)
    with pytest.raises(UserError, match=r"state\.json is no JSON") as error:
        load_checkpoint(tmp_path / "bad")
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_single_tensor_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "alphas.safetensors"
    save_tensors(path, tensors_of(3))
    assert digest(load_tensors(path), None) == digest(tensors_of(3), None)
    with pytest.raises(UserError, match="cannot be read"):
        load_tensors(tmp_path / "missing")
