"""Files are whole or not there, whatever happens to their writer."""

import os
import sys
from pathlib import Path

import pytest
from faults import killed_at

from pvnas.errors import UserError
from pvnas.runtime.files import TEMPORARY, hold, remove_strays, write_atomic, write_folder


def test_a_kill_at_every_call_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path, old, new = tmp_path / "file.json", b"old" * 50, b"new content" * 50
    seen, call = set(), 1
    while True:
        write_atomic(path, old)
        if not killed_at(call, lambda: write_atomic(path, new)):
            break
        content = path.read_bytes()
        assert content in (old, new)
        seen.add(content)
        remove_strays(tmp_path)
        assert os.listdir(tmp_path) == ["file.json"]
        call += 1
    assert seen == {old, new}
    assert call > 5
    assert path.read_bytes() == new


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be tested here; the order of the calls that guard against it can."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name[:4])
        fsync(descriptor)

    def noted_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    home = tmp_path / "home"
    home.mkdir()
    write_atomic(home / "file", b"x")
    assert calls == ["fsync .tmp", "rename", "fsync home"]
    calls.clear()
    write_folder(home / "new", {"one": b"1", "two": b"2"})
    assert calls == ["fsync one", "fsync two", "fsync .tmp", "rename", "fsync home"]


def test_folders_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "t.txt", "ä")
    assert (tmp_path / "a" / "b" / "t.txt").read_bytes() == "ä".encode()
    assert os.listdir(tmp_path / "a" / "b") == ["t.txt"]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below", "y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written"):
        write_atomic(tmp_path / "folder", "y")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_strays_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead_folder, alive = tmp_path / "deep" / f"{TEMPORARY}1-x", tmp_path / f"{TEMPORARY}2-y"
    dead_folder.mkdir(parents=True)
    (dead_folder / "tensors").write_text("half")
    (tmp_path / f"{TEMPORARY}3-z").symlink_to(tmp_path / "elsewhere")
    alive.write_text("being written")
    descriptor = os.open(alive, os.O_WRONLY)
    hold(descriptor)
    remove_strays(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [alive.name, "deep"]
    os.close(descriptor)
    remove_strays(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["deep"]
