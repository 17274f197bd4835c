"""``make fleet``: what a whole fleet of waiting and writing tasks costs, and what it survives.

PostgreSQL, Redis, Airflow with CeleryExecutor, two triggerers and two workers, and MLflow, all real
processes on loopback. ``python -m fleet`` runs it, everything lives under ``.fleet/``. The means
(processes, consoles, REST) are those of :mod:`demo`; nothing of either package ships.
"""
