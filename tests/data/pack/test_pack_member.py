"""Hostile members and values of every kind: refused with a printable line, or taken as what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvnas.data.pack.format import DamageError, parse_info, parse_member, shown
from pvnas.data.pack.read import decode_jpeg

GOOD = {"times": [0.0, 0.04, 0.08], "sizes": [5, 6, 7], "duration": 0.12, "height": 4, "width": 6, "path": "a.mp4"}


def sample(about: Any) -> None:
    content = about if isinstance(about, bytes) else json.dumps(about).encode()
    parse_member(content, frames=3, size=18, height=4, width=6)


def test_a_good_member_is_taken() -> None:
    sample(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"times": [0.0, 0.04]},
        {"times": [0.0, 0.08, 0.04]},
        {"times": [0.0, 0.04, 0.04]},
        {"times": [1.0, 2.0, 3.0]},
        {"times": [0, 1, 2]},
        {"times": [0.0, 0.04, "1"]},
        {"times": [0.0, 0.04, None]},
        {"times": [0.0, 0.04, True]},
        {"times": [0.0, 0.04, [0.08]]},
        {"times": {"0": 0.0}},
        {"times": None},
        {"sizes": [5, 6, 8]},
        {"sizes": [5, 6]},
        {"sizes": [-5, 16, 7]},
        {"sizes": [0, 11, 7]},
        {"sizes": [5.0, 6.0, 7.0]},
        {"sizes": [True, 10, 7]},
        {"sizes": [2**63, -(2**63), 18]},
        {"sizes": [2**62, 2**62, 2**63 + 18]},
        {"duration": 0.08},
        {"duration": -1.0},
        {"duration": "1"},
        {"duration": 10**400},
        {"height": 5},
        {"width": "6"},
    ],
)
def test_a_hostile_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        sample({**GOOD, **change})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{" * 10**5,
        b'{"times": [0.0, NaN, Infinity]}',
        b'{"times": [0.0, 1e999, 2e999], "sizes": [5, 6, 7], "duration": 1e999, "height": 4, "width": 6}',
    ],
)
def test_a_member_that_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(DamageError):
        sample(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def fault_of(work: Callable[[], object]) -> str:
    """Return the text of the refusal, empty for none; any other error is a failure."""
    try:
        work()
    except DamageError as damage:
        return str(damage)
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted(GOOD)), value=JSON)
def test_any_value_in_a_member_is_taken_or_refused(field: str, value: Any) -> None:
    text = fault_of(lambda: sample({**GOOD, field: value}))
    assert re.fullmatch(r"[ -~]*", text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_a_pack_json_is_taken_or_refused(pack: Path, data: st.DataObject) -> None:
    info = json.loads((pack / "pack.json").read_text())
    place = data.draw(
        st.sampled_from([info, info["options"], info["source"], info["counts"], info["shards"][0], info["catalog"]])
    )
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    text = fault_of(lambda: parse_info(json.dumps(info).encode()))
    assert re.fullmatch(r"[ -~]*", text)


@pytest.mark.parametrize("size", [(8, 6), (4, 12), (60_000, 60_000)])
def test_a_picture_of_another_size_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    content = bytearray(simplejpeg.encode_jpeg(np.zeros((4, 6, 3), np.uint8)))
    header = content.index(b"\xff\xc0")
    content[header + 5 : header + 9] = size[0].to_bytes(2) + size[1].to_bytes(2)
    with pytest.raises(DamageError, match=f"is {size[1]}x{size[0]}, not 6x4 pixels"):
        decode_jpeg(bytes(content), np.zeros((4, 6, 3), np.uint8))


def test_what_is_shown_of_a_pack_is_short_and_printable() -> None:
    for value in ("\x1b[2J\n<script>", "x" * 10_000, 10**5000, None, ["\u202e"], {"a": "\0"}):
        assert re.fullmatch(r"[ -~]{1,100}", shown(value))
