"""The story of ``make demo``: real Airflow tasks log to a real MLflow while its name is gone.

``python -m demo`` runs it, ``python -m demo up`` leaves its stack running for a browser,
``python -m demo down`` takes that down again. Everything lives under ``.demo/``.
"""
