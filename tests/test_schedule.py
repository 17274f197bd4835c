"""The order in which a run on several workers goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schedule import LONGEST, OUTAGES, SINGLE, WAITING, scope

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted({*LONGEST, *SINGLE, *WAITING, OUTAGES}))
def test_what_is_scheduled_exists(name: str) -> None:
    """A test that was renamed would start last, and the run end later."""
    file, _, test = name.partition("::")
    assert f"def {test}" in (ROOT / file).read_text()


def test_a_file_stays_together_unless_its_tests_share_nothing() -> None:
    """The servers of a module are started once."""
    assert scope("tests/page/test_page.py::test_a[x::y]") == "tests/page/test_page.py"
    assert scope(f"{OUTAGES}_x[fork-down]") == scope(f"{OUTAGES}_x[spawn-down]")
    assert scope(f"{OUTAGES}_x[fork-down]") != scope(f"{OUTAGES}_x[fork-silent]")
    alone = "tests/matrix/test_hangs.py::test_a_black_hole_is_left[x]"
    assert scope(alone) == alone
