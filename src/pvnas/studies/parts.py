"""What studies are made of: runs, each one command of ``pvnas`` with a run directory of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pvnas.runtime.files import LOCK, is_held
from pvnas.session import GENOTYPE, RESULTS


@dataclass(frozen=True)
class Part:
    """One run: it is done when its directory holds what it ``ends_in``, whoever has made it."""

    folder: Path
    """Of the study, in which the run directory is."""
    name: str
    """Its run directory in that folder: ``random/drawn/seed-0``."""
    words: tuple[str, ...]
    """Of the command after ``pvnas``, without ``--dir``."""
    needs: tuple[Part, ...] = ()
    """Parts whose results it reads."""
    ends_in: str = RESULTS
    prepare: Callable[[], None] | None = field(default=None, compare=False)
    """Makes what the command reads, before it is started."""

    @property
    def run_dir(self) -> Path:
        return self.folder / self.name

    @property
    def genotype(self) -> Path:
        """What the run has searched, or trained."""
        return self.run_dir / GENOTYPE

    @property
    def command(self) -> list[str]:
        return [*self.words, "--dir", str(self.run_dir)]

    @property
    def log(self) -> Path:
        """What the run has said."""
        return self.folder / "logs" / f"{self.name.replace('/', '.')}.log"

    def is_done(self) -> bool:
        return (self.run_dir / self.ends_in).exists()

    def is_held(self) -> bool:
        """Return whether a process is at it, here or on another host that shares the folder."""
        return is_held(self.run_dir / LOCK)


def with_needs(parts: Iterable[Part]) -> list[Part]:
    """Return the parts and all that they need, each once and behind what it needs."""
    ordered: dict[str, Part] = {}

    def add(part: Part) -> None:
        for needed in part.needs:
            add(needed)
        ordered.setdefault(part.name, part)

    for part in parts:
        add(part)
    return list(ordered.values())
