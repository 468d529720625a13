"""How the page writes text and numbers."""

import math
import re
from typing import Any, TypeGuard

ABSENT = "–"
# Control characters, lone surrogates, no characters at all, and what turns the direction of writing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: object, limit: int = 200) -> str:
    """Return text that is safe to show: no control or direction characters, no lone surrogates, not endless."""
    shown = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value read from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 2) -> str:
    """Return a number for people, or an en dash where there is none."""
    if not is_number(value):
        return ABSENT
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: Any) -> str:
    """Return a share that is already in percent, with one or two digits as it was given."""
    return f"{value:.4g} %" if is_number(value) else ABSENT


def scaled(value: Any) -> str:
    """Return a count with three or four digits and k, M, G or T, as 19.65 M."""
    if not is_number(value):
        return ABSENT
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.2f} {prefix}"
    return f"{value:g}"


def duration(seconds: Any) -> str:
    """Return seconds as 45 s, 12 min 3 s or 4 h 07 min."""
    if not is_number(seconds):
        return ABSENT
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
