# make demo   sets up .venv and runs the quickstart sweep     make test    sets up .venv and passes the tests
# make setup | check (lint, format, types) | test-docs | test-slow | test-reliability | test-slurm | test-browser | test-export | bench | bench-solvers | wheel | clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
BENCH_STAMP := .venv/.ready-bench
RAY_STAMP := .venv/.ready-ray
EXPORT_STAMP := .venv/.ready-export
BROWSER_STAMP := .venv/.ready-browser

.PHONY: demo setup test test-docs test-slow test-reliability test-slurm test-browser test-export check bench bench-solvers wheel clean

demo: setup
	$(BIN)/deqcli sweep-width quickstart

setup: $(STAMP)

$(STAMP): setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# a file of tests to each core: their networks are so small that a second core would only wait
test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# every command of README.md and docs/, and what it prints
test-docs: setup
	$(BIN)/python -m pytest -m docs

test-slow: setup
	$(BIN)/python -m pytest -m slow

$(RAY_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	touch $@

test-reliability: $(RAY_STAMP)
	$(BIN)/python -m pytest -m reliability

$(EXPORT_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export]'
	touch $@

# what `deqcli export` writes, read back by pyarrow, TensorBoard and MLflow
test-export: $(EXPORT_STAMP)
	$(BIN)/python -m pytest tests/test_export.py

# as root on Debian: installs SLURM, which the tests start as a cluster of this machine alone
test-slurm: setup
	command -v slurmctld >/dev/null || apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge
	$(BIN)/python -m pytest -m slurm

$(BROWSER_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	touch $@

# as root on Debian: installs Chromium, in which the tests look at a report
test-browser: $(BROWSER_STAMP)
	command -v chromium >/dev/null || apt-get install --yes --no-install-recommends chromium
	$(BIN)/python -m pytest -m browser

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks

bench-solvers: setup
	$(BIN)/python -m benchmarks solvers

wheel: setup
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
