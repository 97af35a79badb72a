# make demo        a real transfer on this machine, from an empty folder to a compared file (FILE=... sends another)
# make test        format, lint, types, tests: what CI runs
# make test-long   the tests that take longer
# make bench       how fast this is, beside scp and its kin on this machine: an hour (BENCH=--quick: minutes)
# make format      rewrite the files in the project's format

PYTHON ?= python3
FILE ?= README.md
BENCH ?= --json bench/results.json --svg docs/bench.svg
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-long bench format clean

demo: $(VENV)/.runtime
	@$(RUN) tools/demo.py "$(FILE)"

test: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest -n 4 --dist worksteal -m "not long" || [ $$? -eq 5 ]  # 5: there is no test

test-long: $(VENV)/.dev
	$(RUN) -m pytest -m long

bench: $(VENV)/.bench
	$(RUN) -m bench $(BENCH)

format: $(VENV)/.dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.bench: bench/requirements.txt $(VENV)/.runtime
	$(RUN) -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@
