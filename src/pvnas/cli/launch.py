"""``--processes N``: the same command in several processes on this host, started and watched by torchrun's engine."""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pvnas.errors import LostProcessError
from pvnas.runtime.progress import clean
from pvnas.runtime.signals import EXIT_CODE, STARTED_BY

RESTARTS = 3
SECONDS_TO_STOP = "600"


def launch(processes: int, words: Sequence[str]) -> int:
    """Run ``pvnas WORDS`` in so many processes and return their exit code.

    Where one is lost, killed or hanging, all are started again, up to RESTARTS times, and go on from the last
    checkpoint. A signal is handed on to all of them.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name, logger in logging.root.manager.loggerDict.items():  # each has a level of its own; we say it in one line
        if name.startswith("torch.distributed") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.CRITICAL)
    os.environ |= {STARTED_BY: str(os.getpid()), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SECONDS_TO_STOP}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"pvnas-{os.getpid()}",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGUSR1",
    )
    _ctrl_c_hands_on_and_then_leaves()
    for restart in range(RESTARTS + 1):
        try:
            elastic_launch(config, sys.executable)("-m", "pvnas", *words)
            return 0
        except SignalException:
            return EXIT_CODE
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            lost = {rank: code for rank, code in codes.items() if code < 0 or code == LostProcessError.exit_code}
            if lost != codes:  # a mistake, a stop, or the others' end because of one
                return next(code for rank, code in codes.items() if rank not in lost)
            again = f"starting all {processes} again ({restart + 1} of {RESTARTS} times)" if restart < RESTARTS else ""
            again = again or "type the same command to go on from the last checkpoint"
            print(clean(f"pvnas: {_in_words(error.failures)}; {again}"), file=sys.stderr)
    return LostProcessError.exit_code


def _ctrl_c_hands_on_and_then_leaves() -> None:
    """Let the first Ctrl-C stop all processes as SIGTERM does, and the second leave at once, and them with it."""

    def leave(*_: object) -> NoReturn:
        os._exit(128 + signal.SIGINT)

    def hand_on(*_: object) -> None:
        signal.signal(signal.SIGINT, leave)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, hand_on)


def _in_words(failures: Mapping[int, Any]) -> str:
    """Return which processes ended, and how: not those that were ended because of them, where there are others."""
    ended = {rank: failure for rank, failure in failures.items() if failure.exitcode < 0}
    killed = {rank: failure for rank, failure in ended.items() if failure.exitcode != -signal.SIGTERM}
    parts = []
    for rank, failure in sorted((killed or ended or failures).items()):
        by = f"was ended by {signal.Signals(-failure.exitcode).name}" if failure.exitcode < 0 else "lost another one"
        parts.append(f"process {rank} (pid {failure.pid}) {by}")
    return ", ".join(parts)
