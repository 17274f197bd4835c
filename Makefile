# Users need make demo and make test. The other targets are for developers.

VENV := .venv
FLOOR := .venv-floor
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
# For two cores: two workers have the tests that compute, two those that mostly wait.
# tests/schedule.py says which, and what stays on one worker.
WORKERS := 4
AT_ONCE := -n $(WORKERS) --dist loadfile
# A run leaves a file for each worker. The parts that decide are covered to the last branch.
COVERAGE := $(PY) -m coverage combine -q && $(PY) -m coverage report --skip-covered --fail-under=95 && \
	$(PY) -m coverage report --include='*/freshness.py,*/target.py' --fail-under=100
# The floor has the versions that an installation got when Airflow 3.2 was released.
FLOOR_DATE := 2026-06-01
# MLflow's client: the oldest supported and the newest; the pinned one is in .venv.
MLFLOW_VERSIONS := 3.10.1 3.18.0
# The Airflow release after the one in constraints.txt, pre-releases included.
NEXT_AIRFLOW := 3.4.0b1
LOCK := $(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 \
	--no-header --no-annotate --no-emit-index-url --quiet

# Where it is set, every process compiles this package again, and every pytest all tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-floor setup-next setup-mlflow lint check test test-fleet demo up down fleet bench coverage soak screenshots docs lock build clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## create .venv with the pinned versions (PYTHON=... chooses the interpreter)
	@.ci/setup $(VENV) constraints.txt

setup-floor: setup ## create .venv-floor with Airflow 3.2 and the oldest supported versions
	@.ci/setup $(FLOOR) constraints-floor.txt

setup-next: setup ## create .venv-next with the next Airflow, pre-releases included; it may not install yet
	@.ci/setup-next .venv-next $(NEXT_AIRFLOW)

setup-mlflow: setup ## unpack further versions of MLflow's client for the tests that run on each
	@.ci/setup-mlflow .mlflow-versions $(MLFLOW_VERSIONS)

lint: setup ## run ruff, mypy and the import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

docs: setup ## build the documentation in docs/_build/html; a warning is an error
	$(PY) -m sphinx -W -n --keep-going -q -b html docs docs/_build/html

check: lint ## run lint and the tests that need no server: some minutes
	$(PYTEST) $(AT_ONCE) -q -m "not integration and not e2e"

# The fleet test runs alone: it starts seven Airflow processes, and some of its claims are times in seconds.
test: setup-floor setup-next setup-mlflow ## run everything: lint, docs, floor, unit, property, integration and end-to-end tests; the resolver's coverage
	@$(MAKE) --no-print-directory -j2 -O lint docs
	@$(MAKE) --no-print-directory test-fleet
	$(PY) -m coverage erase
	$(PYTEST) $(AT_ONCE) -p tests.resolver_coverage -m "not fleet" --durations=20 --cache-clear || \
		{ [ $$? = 1 ] && .ci/test-again $(PY) -m "not fleet"; }
	$(COVERAGE)

test-fleet: setup ## run the small form of make fleet as a test
	$(PYTEST) -m fleet tests/e2e/test_fleet.py

demo: setup ## run the demo: MLflow's name disappears while real Airflow tasks use it
	@$(PY) -m demo

up: setup ## start the demo's Airflow and MLflow, and leave them running for a browser
	@$(PY) -m demo up

down: setup ## stop what make up started
	@$(PY) -m demo down

fleet: setup ## run a thousand gates and two hundred trainings on PostgreSQL and Celery, with faults
	@$(PY) -m fleet

bench: setup ## compare this resolver with its peers, in one run on this machine
	$(PY) -m benchmarks

coverage: setup ## measure line and branch coverage of the resolver
	$(PY) -m coverage erase
	$(PYTEST) -q $(AT_ONCE) tests/resolver
	$(COVERAGE)

screenshots: setup ## take the screenshots of the status page and the forms for the docs (needs Chromium)
	PICTURES=docs/images $(PYTEST) -q tests/page/test_in_airflow.py

soak: setup ## run ten minutes of random faults; fails on an error or a leak
	$(PY) -m benchmarks.soak

lock: setup ## update constraints.txt and constraints-floor.txt (UPGRADE=1 takes newer versions)
	$(LOCK) --group dev $(if $(UPGRADE),--upgrade) -o constraints.txt
	$(LOCK) --group floor --resolution lowest-direct --exclude-newer $(FLOOR_DATE) -o constraints-floor.txt

build: setup ## build the wheel and the source distribution in dist/
	$(PY) -m build --no-isolation

clean: ## remove everything these commands created: environments, DAGs and MLflow data of make up
	@if [ -x $(PY) ]; then $(PY) -m demo down || true; fi
	@if [ -d .demo/up ]; then echo "Removing .demo/up: your DAGs and MLflow's data of make up."; fi
	rm -rf $(VENV) .venv-* .mlflow-versions .demo .fleet .tools dist build *.egg-info docs/_build .coverage* .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
