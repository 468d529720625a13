"""Two hosts: two network namespaces joined by a cable, a torchrun in each, and one of them lost and back again.

    python benchmarks/two_hosts.py OUT          (as root, on Linux, with iproute2)

A small search and training on generated videos is made once in a single process, then by two torchruns that meet over
the cable; in the middle of it all processes of the second host are killed, and its torchrun is started anew. The digest
must be that of the single process. Writes OUT/two_hosts.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import command_line, describe_machine, now
from pvnas.data.shapes import write_shapes
from pvnas.runtime.files import write_atomic
from pvnas.session import run_digest
from soak import OPTIONS, start

HOSTS = {"first": "10.123.45.1", "second": "10.123.45.2"}
PORT = 29477


def main() -> None:
    """Make the run in both ways, and print both digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    folder = parser.parse_args().folder.absolute()
    videos, run_dir, alone = folder / "videos", folder / "two-hosts", folder / "alone"
    write_shapes(videos, videos_per_class=6)
    for old in (run_dir, alone):
        shutil.rmtree(old, ignore_errors=True)
    if start(videos, alone, 1).wait() != 0:
        raise SystemExit("the run in a single process has failed")
    with cable():
        hosts = {name: torchrun(name, videos, run_dir) for name in HOSTS}
        wait_for_checkpoints(run_dir / "checkpoints" / "search", 2)
        os.killpg(hosts["second"].pid, signal.SIGKILL)
        kill_workers("second")
        lost_at = time.monotonic()
        time.sleep(5)
        hosts["second"] = torchrun("second", videos, run_dir)
        codes = {name: host.wait(600) for name, host in hosts.items()}
    report = {
        "machine": describe_machine(),
        "command": command_line(),
        "date": now(),
        "codes": codes,
        "seconds_after_the_loss": round(time.monotonic() - lost_at, 1),
        "digests": {"one process": run_digest(alone), "two hosts": run_digest(run_dir)},
    }
    write_atomic(folder / "two_hosts.json", json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    if len(set(report["digests"].values())) != 1 or set(codes.values()) != {0}:
        raise SystemExit("not the same")


@contextmanager
def cable() -> Iterator[None]:
    """Make two network namespaces with a cable between them, and take them away at the end."""
    ip("link", "add", "cable-first", "type", "veth", "peer", "name", "cable-second")
    try:
        for name, address in HOSTS.items():
            ip("netns", "add", f"pvnas-{name}")
            ip("link", "set", f"cable-{name}", "netns", f"pvnas-{name}")
            ip("-n", f"pvnas-{name}", "addr", "add", f"{address}/24", "dev", f"cable-{name}")
            for device in ("lo", f"cable-{name}"):
                ip("-n", f"pvnas-{name}", "link", "set", device, "up")
        yield
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "delete", f"pvnas-{name}"], check=False)


def ip(*words: str) -> None:
    """Call iproute2."""
    subprocess.run(["ip", *words], check=True)


def torchrun(name: str, videos: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    """Start a torchrun with one process on a host."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS['first']}:{PORT}", "--rdzv-id", "two-hosts"]
    engine = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    # torchrun knows its own host by the name; here both have the same one
    engine += ["--max-restarts", "5", "--local-addr", HOSTS[name], "--rdzv-conf", f"is_host={int(name == 'first')}"]
    command = [*engine, "-m", "pvnas", "run", str(videos), "--dir", str(run_dir), *OPTIONS]
    return subprocess.Popen(
        ["ip", "netns", "exec", f"pvnas-{name}", *command],
        # A torchrun that comes back can't find the store that the others still share from before (pytorch #135712).
        env=os.environ
        | {"GLOO_SOCKET_IFNAME": f"cable-{name}", "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        start_new_session=True,
    )


def wait_for_checkpoints(folder: Path, number: int) -> None:
    """Wait until a stage has saved so often."""
    until = time.monotonic() + 180
    while max((int(path.name[:6]) for path in folder.glob("0*-*")), default=0) < number:
        if time.monotonic() > until:
            raise SystemExit(f"no checkpoint in {folder}")
        time.sleep(0.1)


def kill_workers(name: str) -> None:
    """Kill what torchrun has started on a host: each is in a session of its own."""
    pids = subprocess.run(["ip", "netns", "pids", f"pvnas-{name}"], capture_output=True, text=True, check=True).stdout
    for pid in map(int, pids.split()):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
