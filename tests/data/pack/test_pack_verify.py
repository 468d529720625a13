"""Verification finds whatever is not as it was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pvnas.data.catalog import Catalog
from pvnas.data.pack import open_pack, pack_videos, verify_pack


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pack, tmp_path / "copy")


def flip(path: Path, offset: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= bit
    path.write_bytes(content)


def test_a_sound_pack_has_no_problems(pack: Path) -> None:
    assert verify_pack(str(pack)) == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2, 0.5, 0.77, 0.999999])
@pytest.mark.parametrize("name", ["train-00001.tar", "catalog.safetensors"])
def test_a_flipped_bit_is_found(copy: Path, name: str, share: float) -> None:
    path = copy / name
    flip(path, int(share * path.stat().st_size))
    (problem,) = verify_pack(copy)
    assert name in problem
    assert "SHA-256" in problem
    assert "\n" not in problem


def truncate(folder: Path) -> None:
    path = folder / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (truncate, "train-00001.tar: has "),
        (lambda folder: (folder / "train-00001.tar").unlink(), "train-00001.tar: is missing"),
        (lambda folder: (folder / "catalog.safetensors").unlink(), "lacks catalog.safetensors"),
        (lambda folder: (folder / "pack.json").unlink(), "is no finished pack"),
        (lambda folder: flip(folder / "pack.json", 3), "pack.json"),
    ],
)
def test_what_is_missing_or_truncated_is_found(copy: Path, damage: Callable[[Path], None], text: str) -> None:
    damage(copy)
    (problem,) = verify_pack(copy)
    assert text in problem


def test_the_shard_of_another_pack_is_found(shapes: Catalog, copy: Path, tmp_path: Path) -> None:
    pack_videos(shapes, tmp_path / "other", short_side=48, quality=70, videos_per_shard=10, workers=0)
    shutil.copy(tmp_path / "other" / "val-00000.tar", copy)
    (problem,) = verify_pack(copy)
    assert problem.startswith("val-00000.tar: has ")
    (tmp_path / "one").mkdir()
    shutil.copytree(copy, tmp_path / "two")
    for name in ("train-00000.tar", "train-00001.tar"):  # two shards in each other's place
        shutil.copy(copy / name, tmp_path / "one" / name)
    shutil.copy(tmp_path / "one" / "train-00000.tar", copy / "train-00001.tar")
    assert any(problem.startswith("train-00001.tar") for problem in verify_pack(copy))


def test_members_that_do_not_fit_the_catalogue_are_found_where_the_hashes_do(copy: Path) -> None:
    import hashlib

    found = open_pack(copy)
    path = copy / "train-00000.tar"
    original, info = path.read_bytes(), (copy / "pack.json").read_text()
    digest = hashlib.sha256(original).hexdigest()
    name = found.catalog.videos[0].path.encode()
    for old, new, text in (
        (name, name[:-5] + b"X.mp4", "differ in path"),
        (b'"split":"train"', b'"split":"trial"', "differ in split"),
        (b'"height":48', b'"height":49', "differ in the size"),
        (b".mjpeg", b".mjpeh", "has no mjpeg member"),
        (b"train-00000-00000.json", b"train-00009-00000.json", "has no json member"),
    ):
        changed = original.replace(old, new, 1)
        assert changed != original
        path.write_bytes(changed)
        (copy / "pack.json").write_text(info.replace(digest, hashlib.sha256(changed).hexdigest()))
        (problem,) = verify_pack(copy)
        assert text in problem
