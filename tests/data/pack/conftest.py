"""The generated set as a catalogue and as a pack, and a web server of files that counts what it serves."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from served import Served

from pvnas.data.catalog import Catalog, Video
from pvnas.data.pack import pack_videos


@pytest.fixture(scope="session")
def shapes(tiny_shapes: Path) -> Catalog:
    """Return the catalogue of the generated set: 48 videos of 64x64 pixels and 32 frames in 8 classes."""
    with open(tiny_shapes / "split.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    videos = (Video(row["path"], classes.index(row["label"]), row["split"], row["group"]) for row in rows)
    return Catalog.of(tiny_shapes, classes, videos, "split.csv")


@pytest.fixture(scope="session")
def pack(shapes: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of the generated set; not to be changed."""
    folder = tmp_path_factory.mktemp("packs") / "shapes"
    pack_videos(shapes, folder, short_side=48, videos_per_shard=10, workers=0)
    return folder


@pytest.fixture
def served(pack: Path) -> Iterator[Served]:
    """Yield a server of the pack on this machine."""
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = pack / self.path.removeprefix("/a/pack/")
            status = state.statuses.pop(0) if state.statuses else 200
            content = path.read_bytes() if path.is_file() else b""
            if status == 200 and not path.is_file():
                status = 404
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if status == 200 and wanted and not state.ignores_ranges:
                status, start, end = 206, int(wanted[1]), min(int(wanted[2]) + 1, len(content))
                total, content = len(content), content[start:end]
                if not content:
                    status = 416
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
            self.end_headers()
            if body:
                self.wfile.write(content)
                state.ranges.append((path.name, start if status == 206 else 0, len(content)))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/a/pack"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
