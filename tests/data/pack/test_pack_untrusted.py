"""A pack from anywhere: whatever it says is one line at worst, and no file but its own is opened."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from pvnas.data.catalog import Catalog
from pvnas.data.pack import open_pack, pack_videos
from pvnas.errors import UserError

OPENED: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if threading.current_thread().name == "pvnas-spinning":  # of an earlier test: it looks at /proc until the end
        return
    if OPENED is not None and event in ("open", "socket.connect", "subprocess.Popen", "os.system", "pickle.find_class"):
        OPENED.append(f"{event} {arguments[0]}")


@pytest.fixture(scope="module", autouse=True)
def _watched() -> None:
    sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Yield a list of the files, sockets and programs that are opened from now on."""
    global OPENED
    OPENED = []
    yield OPENED
    OPENED = None


@pytest.fixture(scope="module")
def small(shapes: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "pack"
    pack_videos(shapes.take([0, 1, 6, 7, 5]), folder, short_side=48, workers=0)
    return folder


def refused(folder: Path, opened: list[str]) -> str:
    """Return the one line with which a pack is refused; fail where anything outside of it is opened."""
    opened.clear()
    with pytest.raises(UserError) as caught:
        read_all(folder)
    text = str(caught.value)
    assert re.fullmatch(r"[ -~]{1,600}", text)  # printable, one line
    outside = [what for what in opened if not what.startswith(f"open {folder}") and "site-packages" not in what]
    assert not [what for what in outside if "/usr/" not in what and ".py" not in what]
    return text


def read_all(folder: Path) -> None:
    reader = open_pack(folder)
    for row in range(len(reader)):
        reader.frames(row, np.arange(reader.length(row)))


def change_info(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = json.loads((folder / "pack.json").read_text())
    change(info)
    (folder / "pack.json").write_text(json.dumps(info))


def change_columns(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    columns = {name: column.copy() for name, column in load((folder / "catalog.safetensors").read_bytes()).items()}
    change(columns)
    write_catalog(folder, save(columns))


def write_catalog(folder: Path, content: bytes) -> None:
    (folder / "catalog.safetensors").write_bytes(content)
    about = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change_info(folder, lambda info: info.update(catalog=about))


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small, tmp_path / "copy")


def _shard(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda info: info["shards"][0].update(change)


def _top(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda info: info.update(change)


HOSTILE_INFO: dict[str, Callable[[dict[str, Any]], object]] = {
    "absolute name": _shard(name="/etc/passwd"),
    "name above": _shard(name="../train-00000.tar"),
    "name in a folder": _shard(name="a/train-00000.tar"),
    "name with an end": _shard(name="train-00000.tar\n"),
    "name with other digits": _shard(name="train-٠٠٠٠٠.tar"),
    "name is a URL": _shard(name="http://127.0.0.1/train-00000.tar"),
    "name with escapes": _shard(name="\x1b[2Jtrain-00000.tar"),
    "no name": _shard(name=None),
    "negative bytes": _shard(bytes=-1),
    "huge bytes": _shard(bytes=10**30),
    "other bytes": _shard(bytes=5),
    "float bytes": _shard(bytes=1e3),
    "true bytes": _shard(bytes=True),
    "other count": _shard(videos=3),
    "short hash": _shard(sha256="0"),
    "shard twice": lambda info: info["shards"].append(info["shards"][0]),
    "no shards": _top(shards=[]),
    "shards are a text": _top(shards="train"),
    "shards of texts": _top(shards=["train"]),
    "other format": _top(format="tar"),
    "version 2": _top(version=2),
    "version true": _top(version=True),
    "no classes": _top(classes=[]),
    "fewer classes": _top(classes=["one"]),
    "classes twice": _top(classes=["one", "one"]),
    "classes are numbers": _top(classes=[1, 2]),
    "no counts": _top(counts={}),
    "other counts": _top(counts={"train": 1, "val": 0, "test": 4}),
    "counts are texts": _top(counts={"train": "4", "val": 0, "test": 1}),
    "no options": _top(options=None),
    "options of texts": _top(options={"short_side": "x", "quality": 1, "videos_per_shard": 1, "seed": 0}),
    "left out of numbers": _top(left_out=[1]),
    "other catalogue": _top(catalog={"bytes": 5, "sha256": "0" * 64}),
    "no frames": _top(frames="many"),
}


@pytest.mark.parametrize("name", HOSTILE_INFO)
def test_a_hostile_pack_json_is_one_line(copy: Path, opened: list[str], name: str) -> None:
    change_info(copy, HOSTILE_INFO[name])
    refused(copy, opened)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"format": NaN}',
        pickle.dumps(print),
        b"1" * 9999,
    ],
)
def test_a_pack_json_that_is_none_is_one_line(copy: Path, opened: list[str], content: bytes) -> None:
    (copy / "pack.json").write_bytes(content)
    refused(copy, opened)


def _set(name: str, value: int, row: int = 0) -> Callable[[dict[str, Any]], object]:
    return lambda columns: columns[name].__setitem__(row, value)


HOSTILE_COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{
        f"{name} {value}": _set(name, value)
        for value in (-1, -(2**31), 2**31 - 1)
        for name in ("labels", "shards", "heights", "widths")
    },
    **{
        f"{name} {value}": _set(name, value)
        for value in (-1, 0, 2**40, 2**62, -(2**63), 2**63 - 1)
        for name in ("json_offsets", "json_sizes", "mjpeg_offsets", "mjpeg_sizes", "frames")
    },
    "groups": _set("groups", 99),
    "groups below": _set("groups", -2),
    "split": _set("splits", 2),
    "no split": _set("splits", 77),
    "path longer": _set("path_lengths", 10_000),
    "path shorter": _set("path_lengths", 1),
    "path below": _set("path_lengths", -1),
    "same place twice": lambda c: [
        c[n].__setitem__(1, c[n][0]) for n in ("json_offsets", "json_sizes", "mjpeg_offsets")
    ],
    "rows turned": lambda c: [
        c[n].__setitem__(slice(None), c[n][::-1].copy()) for n in c if n.startswith(("json", "mjpeg"))
    ],
    "another shard": _set("shards", 1),
    "absurd frames": lambda c: (_set("heights", 60_000)(c), _set("widths", 60_000)(c)),
    "column more": lambda c: c.update(more=np.zeros(3)),
    "column less": lambda c: c.pop("frames"),
    "other type": lambda c: c.update(labels=c["labels"].astype(np.float32)),
    "other shape": lambda c: c.update(labels=c["labels"].reshape(-1, 1)),
    "fewer rows": lambda c: c.update(labels=c["labels"][:-1]),
    "no rows": lambda c: c.update({n: v[:0] for n, v in c.items()}),
}


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_a_hostile_catalogue_is_one_line(copy: Path, opened: list[str], name: str) -> None:
    change_columns(copy, HOSTILE_COLUMNS[name])
    refused(copy, opened)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"\xff" * 100, pickle.dumps([print]), b"\x08" + b"\0" * 7 + b"{}      "]
)
def test_a_catalogue_that_is_none_is_one_line(copy: Path, opened: list[str], content: bytes) -> None:
    write_catalog(copy, content)
    refused(copy, opened)


def test_a_shard_that_is_a_link_to_a_secret_shows_nothing_of_it(copy: Path, opened: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2 " * 100_000)
    (copy / "train-00000.tar").unlink()
    (copy / "train-00000.tar").symlink_to(secret)
    assert "hunter2" not in refused(copy, opened)
