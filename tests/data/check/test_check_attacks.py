"""Files that attack: by their name, by what they send FFmpeg to, by the size of their pictures."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from attacks import Watch, huge_video, lying_video
from test_faults import OK, REFUSED, catalog_of, gif, write

from pvnas.data.check import Limits, check_videos

CHECK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from pvnas.data.catalog import Catalog
from pvnas.data.check import check_videos
from pvnas.data.video.decode import decode_video
from pvnas.data.check import Limits
from pvnas.data.catalog import Video

root, *names = sys.argv[1:]
catalog = Catalog.of(Path(root), ("a",), [Video(name, 0, "train") for name in names])
print(json.dumps([asdict(verdict) for verdict in check_videos(catalog, Limits(workers=1))]))
"""


def lures(root: Path, secret: Path, address: str) -> dict[str, str]:
    """Put files that send FFmpeg elsewhere into `root`, by their content or by their name; return their verdicts."""
    scripts = {
        "clip.mp4": f"ffconcat version 1.0\nfile {secret.name}\nfile '{secret}'\n",
        "clip_http.mp4": f"ffconcat version 1.0\nfile {address}\n",
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "list_http.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "key.m3u8": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n',
        "subfile.mp4": f"#EXTM3U\n#EXTINF:1,\nsubfile,,start,0,end,99,,:{secret}\n",
        "manifest.mpd": f'<?xml version="1.0"?><MPD><BaseURL>{address}</BaseURL></MPD>',
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    }
    for name, text in scripts.items():
        (root / name).write_text(text)
    named = [f"concat:{secret.name}|{secret.name}", f"subfile,,start,0,end,0,,:{secret.name}", "http:", "data:,x.mp4"]
    named += ["%03d.mp4", "-i.mp4", "pipe:0", "crypto:x.mp4"]
    for name in named:
        (root / name).write_bytes(secret.read_bytes())
    host = root / "tcp:" / address.split("/")[2]
    host.mkdir(parents=True)
    (host / "x.mp4").write_bytes(secret.read_bytes())
    absent = {address: "missing", f"file:{secret}": "missing", f"concat:{secret}": "missing"}
    by_name = dict.fromkeys([*named, address.replace("http", "tcp")], OK)
    return dict.fromkeys(scripts, REFUSED) | by_name | absent


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_names_and_scripts_open_no_socket_and_no_other_file(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    secret = write(elsewhere / "secret.mp4")
    beside = root / "secret.mp4"
    beside.write_bytes(secret.read_bytes())
    (root / "001.mp4").write_bytes(secret.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.mp4"
        expected = lures(root, secret, address)
        watch = Watch(root, elsewhere)
        command = [sys.executable, "-c", CHECK, str(root), *expected]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, cwd=root)
        opened = watch.opened()
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection(listener.getsockname()):
            listener.accept()  # the listener itself works
    assert {each["path"]: each["verdict"] for each in json.loads(done.stdout)} == expected
    assert {path for path in opened if path.is_file()} == {
        root / name for name in expected if (root / name).is_file() and "/" not in name
    }
    secret.read_bytes()
    assert watch.opened() == {secret}  # the watch itself works
    watch.close()


class Peak:
    """Asked between two verdicts as a stop request is, it notes the most memory that a worker has ever held, in MiB."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @property
    def requested(self) -> bool:
        for worker in active_children():
            status = Path(f"/proc/{worker.pid}/status").read_text()
            self.seen += [int(kib) / 1024 for kib in re.findall(r"VmHWM:\s+(\d+) kB", status)]
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_huge_pictures_in_small_files_are_refused_at_once_and_take_no_memory(tmp_path: Path) -> None:
    write(tmp_path / "idle.mp4")
    lying_video(huge_video(tmp_path / "huge.mp4"), tmp_path / "lying.mp4")
    for side in (9000, 65535):
        gif(tmp_path / f"{side}.gif", side, side)
    names = ["huge.mp4", "lying.mp4", "9000.gif", "65535.gif"]
    peak = Peak()
    check_videos(catalog_of(tmp_path, ["idle.mp4"]), Limits(workers=1), stop=peak)
    idle, peak.seen = max(peak.seen), []
    started = time.monotonic()
    # A second each, and no more memory than a decoder of small pictures may take.
    verdicts = check_videos(catalog_of(tmp_path, names), Limits(workers=1, deadline=1.0, memory_mib=256), stop=peak)
    print(f"{time.monotonic() - started:.2f} s in all, {max(peak.seen) - idle:.0f} MiB beyond idle")
    assert [verdict.verdict for verdict in verdicts] == [REFUSED, REFUSED, "empty", "empty"]
    assert "8192x8192 pixels are more" in verdicts[0].detail
    assert max(peak.seen) - idle < 256
