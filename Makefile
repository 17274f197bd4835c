# Two commands matter: make demo, make test. The rest is for those who work on the code.

VENV := .venv
FLOOR := .venv-floor
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
# Most of the suite waits for servers and outages. A file stays on one worker, with what it started.
TWO_AT_ONCE := -n 2 --dist loadfile
# The floor is locked as somebody would have installed it when Airflow 3.2 was new.
FLOOR_DATE := 2026-06-01
# MLflow's client as the oldest we promise and as the newest; the pinned one is in .venv.
MLFLOW_VERSIONS := 3.10.1 3.18.0
# The Airflow after the one in constraints.txt, from its first pre-release on.
NEXT_AIRFLOW := 3.4.0b1
LOCK := $(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 \
	--no-header --no-annotate --no-emit-index-url --quiet

.DEFAULT_GOAL := help
.PHONY: help setup setup-floor setup-next setup-mlflow lint check test test-fleet demo up down fleet bench coverage soak screenshots docs lock build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with the pinned versions (PYTHON=... chooses the interpreter)
	@.ci/setup $(VENV) constraints.txt

setup-floor: ## make .venv-floor: Airflow 3.2 and the oldest versions we support
	@.ci/setup $(FLOOR) constraints-floor.txt

setup-next: setup ## make .venv-next: the next Airflow, pre-releases included; it may not install yet
	@.ci/setup-next .venv-next $(NEXT_AIRFLOW)

setup-mlflow: setup ## further versions of MLflow's client, for the tests that run on each
	@.ci/setup-mlflow .mlflow-versions $(MLFLOW_VERSIONS)

lint: setup ## ruff, mypy, import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

docs: setup ## the documentation, into docs/_build/html; a warning is an error
	$(PY) -m sphinx -W -n --keep-going -q -b html docs docs/_build/html

check: lint ## lint, and the tests that need no server: about a minute
	$(PYTEST) -q -m "not integration and not e2e"

# The fleet has the machine to itself: it is seven Airflow processes, and some of its claims are seconds.
test: lint docs setup-floor setup-next setup-mlflow test-fleet ## everything: lint, docs, floor, unit, property, integration, end to end
	$(PYTEST) $(TWO_AT_ONCE) -m "not fleet" --durations=20

test-fleet: setup ## the small form of make fleet, as a test
	$(PYTEST) -m fleet

demo: setup ## the story: an MLflow whose name goes away under real Airflow tasks
	@$(PY) -m demo

up: setup ## the demo's Airflow and MLflow, left running for a browser
	@$(PY) -m demo up

down: setup ## stop what make up started
	@$(PY) -m demo down

fleet: setup ## a thousand gates and two hundred trainings on PostgreSQL and Celery, with faults
	@$(PY) -m fleet

bench: setup ## us beside our peers, measured here, in one run
	$(PY) -m benchmarks

coverage: setup ## lines and branches of the resolver that its tests reach
	$(PY) -m coverage run --source=airflow_provider_hokusai_dns/resolver -m pytest -q tests/resolver
	$(PY) -m coverage report --skip-covered --fail-under=95
	$(PY) -m coverage report --include='*/freshness.py,*/target.py' --fail-under=100

screenshots: setup ## photograph the status page and the forms for the docs (needs Chromium)
	PICTURES=docs/images $(PYTEST) -q tests/page/test_in_airflow.py

soak: setup ## ten minutes of random faults: no error, no leak
	$(PY) -m benchmarks.soak

lock: setup ## write constraints.txt and constraints-floor.txt again (UPGRADE=1 takes newer versions)
	$(LOCK) --group dev $(if $(UPGRADE),--upgrade) -o constraints.txt
	$(LOCK) --group floor --resolution lowest-direct --exclude-newer $(FLOOR_DATE) -o constraints-floor.txt

build: setup ## wheel and source distribution into dist/
	$(PY) -m build --no-isolation

clean: ## remove what these commands made: environments, DAGs and MLflow data of make up
	@if [ -x $(PY) ]; then $(PY) -m demo down || true; fi
	@if [ -d .demo/up ]; then echo "Removing .demo/up: your DAGs and MLflow's data of make up."; fi
	rm -rf $(VENV) .venv-* .mlflow-versions .demo .fleet .tools dist build *.egg-info docs/_build .coverage* .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
