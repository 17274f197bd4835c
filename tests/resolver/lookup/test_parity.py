"""Wherever glibc has an address, so have we: the same set, and no later than half a second.

Forms of resolv.conf x forms of the hosts file x what nameservers do x names, on real packets, in a
private network with an ``/etc`` of its own. See ``parity.py``, which runs in there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.resolver.lookup import parity

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_REPOSITORY = Path(__file__).parents[3]


def _unshare() -> list[str]:
    """The command that runs another in private namespaces.

    :raises Skipped: the machine allows none.
    """
    command = ["unshare", "-nmu" if os.geteuid() == 0 else "-rnmu"]
    if shutil.which("unshare") is None:
        pytest.skip("no private network: unshare is not installed")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no private network: {tried.stderr.strip()}")
    if not os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("the C library is not glibc")
    return command


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Both lookups of every case; the groups run side by side, because most of them wait."""
    command = _unshare()
    running = {
        group: subprocess.Popen(
            [*command, sys.executable, "-m", "tests.resolver.lookup.parity", group],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_REPOSITORY,
        )
        for group in parity.groups()
    }  # fmt: skip
    try:
        results = {}
        for group, process in running.items():
            out, err = process.communicate(timeout=280)
            assert process.returncode == 0, err
            results[group] = [json.loads(line) for line in out.splitlines()]
        yield results
    finally:
        for process in running.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("group", parity.groups())
def test_wherever_glibc_has_an_address_so_have_we(found, group):
    """The same addresses, without any help of the system's own lookup."""
    assert len(found[group]) == len(parity.groups()[group])
    assert [case for case in found[group] if case["wrong"]] == []


def test_the_matrix_means_something(found):
    """Enough cases, and enough in which glibc has an address."""
    cases = [case for group in found.values() for case in group]
    assert len(cases) > 3000
    assert sum(isinstance(case["theirs"], list) for case in cases) > 2000
