"""How cells are stacked: a line of categories such as ``S-NC*K S-RC T-NC*K T-RC T-NC*K T-RC T-NC*K``."""

import re
from dataclasses import dataclass

from pvnas.errors import UserError
from pvnas.space.genotype import CATEGORIES, NODES, is_reduction

MAX_CELLS = 1000
MAX_CHANNELS = 65_536
_TOKEN = re.compile(r"(?P<category>[A-Z]-[A-Z]+)(?:\*(?P<times>K|[1-9]\d{0,3}))?")


@dataclass(frozen=True)
class CellSpec:
    """One cell of a network: what it is, its width, and what the two cells before it put out."""

    category: str
    channels: int
    channels_before: tuple[int, int]
    reduced_before: bool


def parse_layout(layout: str, repeat: int = 1) -> tuple[str, ...]:
    """Return the category of every cell. ``*K`` repeats a cell ``repeat`` times, ``*3`` three times."""
    if repeat < 1:
        raise UserError(f"repeat is {repeat}; must be at least 1")
    categories: list[str] = []
    for token in layout.split():
        match = _TOKEN.fullmatch(token)
        if match is None or match["category"] not in CATEGORIES:
            raise UserError(
                f"layout: {token[:40]!r} is not a cell; write one of {', '.join(CATEGORIES)}, with *K or *3 to repeat"
            )
        times = {"K": repeat, None: 1}.get(match["times"]) or int(match["times"])
        categories += [match["category"]] * times
        if len(categories) > MAX_CELLS:
            raise UserError(f"layout: more than {MAX_CELLS} cells")
    if not categories:
        raise UserError('layout: no cells; write for example "S-NC*K S-RC T-NC*K"')
    return tuple(categories)


def cell_specs(categories: tuple[str, ...], width: int) -> tuple[CellSpec, ...]:
    """Return each cell's width: ``width`` at first, doubled by each reduction; a cell puts out 4 times its width."""
    if not 2 <= width <= 4096:
        raise UserError(f"width is {width}; must be from 2 to 4096 channels")
    specs: list[CellSpec] = []
    channels, before, reduced = width, (width, width), False
    for category in categories:
        channels *= 2 if is_reduction(category) else 1
        specs.append(CellSpec(category, channels, before, reduced))
        before, reduced = (before[1], NODES * channels), is_reduction(category)
    if channels > MAX_CHANNELS:
        raise UserError(f"width is {width}, and the layout's reductions double it to {channels:,}; take less of either")
    return tuple(specs)
