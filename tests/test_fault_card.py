"""The card of faults names tests that exist, and the documentation shows it."""

import re
from pathlib import Path

import pytest

from pvnas.faults import CARD, Fault

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("fault", CARD, ids=lambda fault: fault.what[:40])
def test_every_promise_is_proved_by_tests_that_there_are(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test


def test_the_documentation_shows_the_card() -> None:
    page = (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")
    for fault in CARD:
        assert f"| {fault.what} | {fault.promise} |" in page
