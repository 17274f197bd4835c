"""What Airflow's processes call themselves here: all share one machine, and must be told apart."""

from __future__ import annotations

import os

VARIABLE = "HOKUSAI_FLEET_NAME"
CALLABLE = f"{__name__}.of_this_process"


def of_this_process() -> str:
    """Return the name of this worker or triggerer; for ``[core] hostname_callable``."""
    return os.environ.get(VARIABLE, "fleet")
