"""How large a fleet is, and what it has to bear."""

from __future__ import annotations

from dataclasses import dataclass, fields

#: Seconds between two checks of a gate, everywhere here.
INTERVAL = 5
#: Waiting gates in one DAG run.
GATES_PER_RUN = 10
#: Seconds after which a gate would give up.
TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of one run of the fleet; each is an option of the command line.

    :param gates: gates that wait in one triggerer.
    :param http_gates: Airflow's own deferrable HttpSensors that wait beside them.
    :param runs: DAG runs, gate and training, through the outage with its faults.
    :param metrics: values that each training logs asynchronously.
    :param training: seconds that each training takes at least.
    :param watch: seconds for which waiting gates are counted and measured.
    :param rounds: how often each kind of gate is timed on a healthy day.
    :param slots: tasks that each of the two workers runs at the same time.
    :param opening: seconds from MLflow's return in which the last waiting gate has to be open, if
        there are no other sensors to compare with.
    """

    gates: int = 1000
    http_gates: int = 200
    runs: int = 200
    metrics: int = 100
    training: int = 2
    watch: int = 20
    rounds: int = 3
    slots: int = 4
    opening: int = 90

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name)}" for each in fields(self))


FULL = Sizes()
#: Minutes, for every day and for busy machines: the same faults, and patience.
SMALL = Sizes(gates=50, http_gates=0, runs=20, metrics=50, watch=10, rounds=1, slots=3)
