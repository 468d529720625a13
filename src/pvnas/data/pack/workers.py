"""Shards packed by several processes, which can be killed at any moment.

A decoder is a large program in C that reads files from anywhere: where one of them brings its process down, the command
ends in a line that names the video, and what other processes have finished stays.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from pvnas.data.pack.info import PackOptions
from pvnas.data.pack.shard import ShardJob, ShardRecord, pack_shard
from pvnas.errors import UserError

SECONDS_TO_DIE = 5.0


@dataclass
class _Worker:
    process: BaseProcess
    shard: str
    video: str = ""


def pack_shards(
    jobs: Sequence[ShardJob], folder: Path, options: PackOptions, workers: int, on_video: Callable[[str], None]
) -> Generator[ShardRecord, None, None]:
    """Yield the record of each shard when it is finished, in any order; 0 workers pack in this process.

    ``on_video`` is told the path of each video before it is opened. When the iterator is closed, whatever the reason,
    no worker is left. Raises UserError for a full disk, and for a worker that died, naming the video it was at.
    """
    if workers < 1:
        for job in jobs:
            yield pack_shard(job, folder, options, on_video)
        return
    running: dict[Connection, _Worker] = {}
    waiting = list(reversed(jobs))
    try:
        while waiting and len(running) < workers:
            _start(running, waiting.pop(), folder, options)
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                worker = running[ready]
                found = _receive(ready, worker)
                if isinstance(found, str):
                    worker.video = found
                    on_video(found)
                    continue
                yield found
                if waiting:
                    job = waiting.pop()
                    worker.shard, worker.video = job.name, ""
                    _send(ready, job, worker)
                else:
                    _end(running, ready)
    finally:
        for connection in list(running):
            _end(running, connection)


def _start(running: dict[Connection, _Worker], job: ShardJob, folder: Path, options: PackOptions) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, folder, options), daemon=True)
    with _no_interrupt():
        process.start()
        running[ours] = worker = _Worker(process, job.name)
    theirs.close()
    _send(ours, job, worker)


def _end(running: dict[Connection, _Worker], connection: Connection) -> None:
    worker = running.pop(connection)
    worker.process.kill()
    worker.process.join()
    connection.close()


def _send(connection: Connection, job: ShardJob, worker: _Worker) -> None:
    try:
        connection.send(job)
    except OSError:
        raise _death(worker) from None


def _receive(connection: Connection, worker: _Worker) -> str | ShardRecord:
    """Return the path of a video that is begun, or the record of a shard. Raises what ended the worker's work."""
    try:
        found = connection.recv()
    except (EOFError, OSError):
        raise _death(worker) from None
    if isinstance(found, Exception):
        raise found
    return found


def _death(worker: _Worker) -> UserError:
    worker.process.join(SECONDS_TO_DIE)
    code = worker.process.exitcode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    # A repr keeps a file name with control characters on one line.
    where = f"at video {worker.video!r}" if worker.video else "before its first video"
    return UserError(
        f"the process that packed {worker.shard} was ended {how} {where}; finished shards are kept: type the same "
        "command again, and if it ends there again, with fewer --workers or without that video"
    )


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; a process started within it never sees one, its parent ends it."""
    resource_tracker.ensure_running()  # it would let signals through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, folder: Path, options: PackOptions) -> None:
    """Pack the shards that come through the pipe until the other end is gone."""
    try:
        while True:
            job = connection.recv()
            connection.send(pack_shard(job, folder, options, connection.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the command has ended
    except Exception as error:
        connection.send(error if isinstance(error, UserError) else RuntimeError(f"{type(error).__name__}: {error}"))
