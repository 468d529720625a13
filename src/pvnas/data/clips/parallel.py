"""Work on videos in processes of their own, in a fixed order, with the faults of a file or a process in one line."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pvnas.errors import UserError

SECONDS_FOR_SIGNAL = 0.5
KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")

Place = TypeVar("Place")
Item = TypeVar("Item")
Made = TypeVar("Made")


def work(
    make: Callable[[Place], Item],
    batches: Iterable[Sequence[Place]],
    collate: Callable[[list[Item]], Made],
    *,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[Made]:
    """Yield ``collate([make(place), ...])`` of each batch of places, in order, made by ``workers`` processes.

    With 0 workers in this process. Raises the UserError of a ``make`` in the main process, and one where a worker
    process is killed.
    """
    loader: DataLoader[Any] = DataLoader(
        _Makers(make),
        batch_sampler=map(list, batches),
        num_workers=workers,
        collate_fn=_Collate(collate),
        pin_memory=pin_memory,
        multiprocessing_context="fork" if workers and sys.platform != "win32" else None,
        generator=torch.Generator(),  # else it draws from the global one, which belongs to the network's dropout
    )
    found = iter(loader)
    while (made := _next(found, workers)) is not None:
        if isinstance(made, _Fault):
            raise UserError(made.text)
        yield made


class _Fault:
    """Why an item could not be made: a DataLoader hands on an exception as the text of its whole traceback."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Makers(Dataset[Any], Generic[Place, Item]):
    def __init__(self, make: Callable[[Place], Item]) -> None:
        self.make = make

    def __getitem__(self, place: Place) -> Item | _Fault:
        try:
            return self.make(place)
        except UserError as error:
            return _Fault(str(error))


class _Collate(Generic[Item, Made]):
    def __init__(self, collate: Callable[[list[Item]], Made]) -> None:
        self.collate = collate

    def __call__(self, items: list[Item | _Fault]) -> Made | _Fault:
        good = []
        for item in items:
            if isinstance(item, _Fault):
                return item
            good.append(item)
        return self.collate(good)


def _next(found: Iterator[Any], workers: int) -> Any:
    """Return what comes next, None at the end. Raises UserError where a worker process died: killed, most likely."""
    try:
        return next(found, None)
    except (RuntimeError, EOFError, OSError) as error:
        if not workers or "in DataLoader worker process" in str(error):
            raise  # a mistake in the work itself, with the worker's traceback as its text
        # The end of a pipe may be seen before the signal of the worker's death, whose handler (torch's) raises wherever
        # the program is at that moment: let it be here.
        text = str(error)
        try:
            time.sleep(SECONDS_FOR_SIGNAL)
        except RuntimeError as named_error:
            text += f" {named_error}"
        named = KILLED.search(text)
        which = f" (process {named[1]})" if named else ""
        raise UserError(
            f"a process that decodes videos{which} was killed, perhaps for want of memory; "
            "start the same command again, with a smaller --data.workers if it happens twice"
        ) from None
