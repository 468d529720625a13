"""What a server of a pack has been asked for."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Served:
    """What a server has been asked for."""

    url: str = ""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """(name, first byte, number of bytes) of each answer with a body."""
    statuses: list[int] = field(default_factory=list)
    """Answers to give before the right ones."""
    ignores_ranges: bool = False
