# make demo   sets up .venv and runs the quickstart sweep     make test    sets up .venv and passes the tests
# make setup | check (lint, format, types) | test-slow | bench | bench-solvers | wheel | clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
BENCH_STAMP := .venv/.ready-bench

.PHONY: demo setup test test-slow check bench bench-solvers wheel clean

demo: setup
	$(BIN)/deqcli sweep-width quickstart

setup: $(STAMP)

$(STAMP): setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

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
