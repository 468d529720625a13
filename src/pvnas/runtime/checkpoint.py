"""Checkpoints that survive a kill, a full disk and a flipped bit; safetensors and JSON, nothing is ever unpickled.

A checkpoint is a folder ``NNNNNN-name`` of three files: tensors.safetensors, state.json and manifest.json with the
SHA-256 of both. It appears by one rename when all its bytes are on the disk. Numbers rise, so that the newest is known
without a clock, and no checkpoint is ever written over.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvnas.errors import UserError
from pvnas.runtime.distributed import World
from pvnas.runtime.files import explained, make_folder, remove_folder, remove_strays, write_atomic, write_folder

FORMAT, VERSION = "pvnas-checkpoint", 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_FOLDER = re.compile(r"\d{6,}-[A-Za-z0-9_.-]+", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """What save_checkpoint was given; the tensors are on the CPU."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    name: str


def save_checkpoint(folder: Path, name: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Add a checkpoint to a folder, remove all but the newest valid one before it, and return its own folder.

    Raises UserError when it cannot be written (disk full); the older checkpoints are intact then.
    """
    if not _FOLDER.fullmatch(f"000000-{name}"):
        raise ValueError(f"{name!r}: a checkpoint's name has letters, digits, '_', '.' and '-' only")
    files = {TENSORS: _tensor_bytes(tensors), STATE: json.dumps(state, allow_nan=False).encode()}
    files[MANIFEST] = _manifest(name, files)
    with explained(folder):
        make_folder(folder)
        number = 1 + max(map(_number, _checkpoints(folder)), default=0)
        path = folder / f"{number:06d}-{name}"
        write_folder(path, files)
        _remove_old(folder)
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest valid checkpoint of a folder, or None where there has never been one.

    What a killed save left is removed. A damaged checkpoint is passed over with a RuntimeWarning; it goes at a later
    save. Raises UserError when there are checkpoints and none is valid: a run never starts again in silence.
    """
    remove_strays(folder)
    damaged: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            checkpoint = _read(path)
        except _DamageError as damage:
            damaged.append(f"{path.name}: {damage}")
            continue
        if damaged:
            text = f"{folder}: damaged checkpoint passed over ({'; '.join(damaged)}); going on from {path.name}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return checkpoint
    if damaged:
        raise UserError(
            f"{folder}: no checkpoint there is valid ({'; '.join(damaged)}); put a copy back, or remove the folder to "
            "start this stage again"
        )
    return None


def shared_checkpoint(folder: Path, world: World) -> Checkpoint | None:
    """Return, in all processes, what ``load_checkpoint`` gives the first one: the others read no file."""
    if world.size == 1:
        return load_checkpoint(folder)
    loaded = world.together(lambda: load_checkpoint(folder) if world.is_first else None, patient=True)
    about: Any = world.first_does(lambda: None if loaded is None else [loaded.state, loaded.name])
    if about is None:
        return None
    content = world.from_first(_tensor_bytes(loaded.tensors) if loaded else None)
    return loaded or Checkpoint(_tensors_of(content), *about)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write one safetensors file atomically. Raises UserError when it cannot be written."""
    write_atomic(path, _tensor_bytes(tensors))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU. Raises UserError when it is missing or damaged."""
    try:
        return _tensors_of(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except _DamageError as damage:
        raise UserError(f"{path}: {damage}; write it anew or name another file") from damage


class _DamageError(Exception):
    """Why a file or a checkpoint cannot be trusted."""


def _read(path: Path) -> Checkpoint:
    files = _verified(path)
    try:
        state = json.loads(files[STATE])
    except (ValueError, RecursionError) as error:
        raise _DamageError(f"{STATE} is no JSON") from error
    if not isinstance(state, dict):
        raise _DamageError(f"{STATE} is no JSON object")
    return Checkpoint(_tensors_of(files[TENSORS]), state, _name(path))


def _verified(path: Path) -> dict[str, bytes]:
    """The files of a checkpoint, if every byte of them is as it was written."""
    files = {}
    for file in (TENSORS, STATE, MANIFEST):
        try:
            files[file] = (path / file).read_bytes()
        except OSError as error:  # which names no file where reading fails, and not opening
            raise _DamageError(f"{file}: {error.strerror}") from error
    manifest = files.pop(MANIFEST)
    # Written again from what is there, so that no byte of the manifest itself goes unchecked.
    if manifest != _manifest(_name(path), files):
        wrong = [file for file, content in files.items() if _sha256(content).encode() not in manifest]
        raise _DamageError(f"{wrong[0] if wrong else MANIFEST} is not what was written (SHA-256)")
    return files


def _manifest(name: str, files: dict[str, bytes]) -> bytes:
    content = {file: {"bytes": len(data), "sha256": _sha256(data)} for file, data in files.items()}
    about = {"format": FORMAT, "version": VERSION, "name": name, "files": content}
    return (json.dumps(about, indent=1) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def valid_checkpoints(folder: Path) -> list[Path]:
    """Return the valid checkpoints of a folder, the oldest first."""
    return [path for path in _checkpoints(folder) if _is_valid(path)]


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first, valid or not."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _name(path: Path) -> str:
    return path.name.partition("-")[2]


def _remove_old(folder: Path) -> None:
    """Leave the newest and, to fall back to, the newest valid one before it."""
    *older, _ = _checkpoints(folder)
    fallback = next(filter(_is_valid, reversed(older)), None)
    for path in older:
        if path != fallback:
            remove_folder(path)


def _is_valid(path: Path) -> bool:
    with suppress(_DamageError):
        return bool(_verified(path))
    return False


def _tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    # Clones: the format knows neither strides nor tensors that share their memory.
    return save({k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()})


def _tensors_of(content: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _DamageError(f"not a safetensors file ({error})") from error


def digest(tensors: dict[str, Tensor], genotype_json: str | None) -> str:
    """Return the SHA-256 (hex) over name, dtype, shape and bytes of the tensors in the order of their names.

    The genotype's JSON text counts as it is; None and an empty text differ. Where tensors lie (device, memory format)
    does not matter. Lengths come before contents, so that no two inputs are read alike.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        _add(total, name.encode())
        _add(total, f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode())
        # Through uint8, since numpy knows no bfloat16.
        _add(total, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if genotype_json is not None:
        _add(total, b"genotype")
        _add(total, genotype_json.encode())
    return total.hexdigest()


def _add(total: hashlib._Hash, content: bytes | memoryview) -> None:
    total.update(len(content).to_bytes(8))
    total.update(content)
