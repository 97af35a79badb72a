# make demo        a real transfer on this machine, of a sample or of FILE=...
# make test        format, lint, types, tests: what CI runs
# make test-long   the tests that take longer
# make bench       how fast this is, beside scp, rsync and others on this machine: an hour (BENCH=--quick: minutes)
# make sizing      what a receiver costs, for the table in docs/OPERATIONS.md: a quarter of an hour (SIZING=--only logins)
# make dashboard   a picture of deploy/grafana.json, made from a real run; needs Prometheus
# make crash       ROUNDS=100 rounds of servers and clients that are killed at random stages (SEED=... repeats them)
# make powercut   cuts the power under a server and its clients on ext4, xfs and btrfs: Linux, root (CUTS=4 a round, SEED=...;
#                 WITHOUT=files, folders or both takes those flushes out, and must fail)
# make cluster     three receivers on a distributed file system, behind HAProxy, in network namespaces of this machine; root
#                 (ENGINE=gluster or ceph-fuse)
# make soak        MINUTES=10 of 50 clients at one server, then every receipt against the disk (SEED=...)
# make timing      measure whether a login's answers tell by their times who has an account
# make architecture  the picture and the table of modules in docs/ARCHITECTURE.md, anew from the code
# make man         the manual pages in docs/man, anew from the parsers of both programs
# make format      rewrite the files in the project's format
# make fuzz        every fuzzing harness for TIME seconds (300), on one core
# make lock        the versions and hashes of all that is installed, also by the tools, anew from the requirements*.txt
# make audit       known vulnerabilities of what is installed; needs a network

PYTHON ?= python3
FILE ?=
BENCH ?= --json bench/results.json --svg docs/bench.svg
SIZING ?=
TIME ?= 300
ROUNDS ?= 100
MINUTES ?= 10
ENGINE ?= gluster
CUTS ?= 4
WITHOUT ?=
SEED ?=
VENV := .venv
RUN := $(VENV)/bin/python
TOOLS := $(VENV)/tools
PEERS := $(VENV)/peers
INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes -r
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --upgrade

unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes: what each imports is compiled once

.PHONY: demo test test-long crash powercut cluster soak bench sizing dashboard fuzz timing format architecture man lock audit clean

demo: $(VENV)/.runtime
	@$(RUN) tools/demo.py "$(FILE)"

# In a new checkout pytest prepares the tests once, beside mypy; or each of its workers would.
test: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy & types=$$!; \
		[ -d tests/__pycache__ ] || $(RUN) -m pytest --collect-only >/dev/null; \
		wait $$types
	$(RUN) -m pytest -n 4 --dist worksteal -m "not long" || [ $$? -eq 5 ]  # 5: there is no test

test-long: $(VENV)/.dev
	$(RUN) -m pytest -m long

bench: $(PEERS)/.done $(VENV)/.runtime
	$(PEERS)/bin/python -m bench $(BENCH)

sizing: $(VENV)/.runtime
	$(RUN) -m bench.sizing $(SIZING)

dashboard: $(VENV)/.runtime
	$(RUN) -m bench.dashboard

crash: $(VENV)/.dev
	$(RUN) -m tests.crash --rounds $(ROUNDS) --seed "$(SEED)"

powercut: $(VENV)/.dev
	$(RUN) -m tests.powercut --cuts $(CUTS) --seed "$(SEED)" $(if $(WITHOUT),--without $(WITHOUT))

cluster: $(VENV)/.dev
	@$(RUN) -m deploy.cluster $(ENGINE) $(RUN) -m pytest -s tests/cluster

soak: $(VENV)/.dev
	$(RUN) -m tests.soak --minutes $(MINUTES) --seed "$(SEED)"

timing: $(VENV)/.dev
	PYTHONPATH=.:tests $(RUN) tests/hostile/timing.py

format: $(VENV)/.dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

architecture:
	$(PYTHON) tools/architecture.py

man: $(VENV)/.runtime
	$(RUN) tools/man_pages.py

fuzz: $(VENV)/.fuzz
	@PYTHONPATH=tests $(RUN) -m fuzz --seconds $(TIME)

lock: $(TOOLS)/.done
	$(TOOLS)/bin/uv $(LOCK) -o requirements.lock requirements.txt
	$(TOOLS)/bin/uv $(LOCK) -o requirements-dev.lock requirements-dev.txt -c requirements.lock
	for each in requirements-tools bench/requirements tests/fuzz/requirements; do \
		$(TOOLS)/bin/uv $(LOCK) -o $$each.lock $$each.txt -c requirements.lock || exit 1; done

audit: $(TOOLS)/.done
	@$(TOOLS)/bin/python tools/audit.py requirements.lock requirements-dev.lock requirements-tools.lock bench/requirements.lock

clean:
	rm -rf $(VENV) .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock | $(VENV)/bin/python
	$(RUN) $(INSTALL) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(RUN) $(INSTALL) requirements-dev.lock
	@touch $@

$(VENV)/.fuzz: tests/fuzz/requirements.lock $(VENV)/.runtime
	@$(RUN) $(INSTALL) $< --only-binary=atheris || { echo "error: the fuzzer, atheris, can't be installed here: it exists for Linux on x86-64 with Python 3.11 to 3.13, and the first time needs a network" >&2; exit 1; }
	@touch $@

$(TOOLS)/.done: requirements-tools.lock | $(VENV)/bin/python
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(INSTALL) $< || { echo "error: uv and pip-audit can't be installed: this needs a network" >&2; exit 1; }
	@touch $@

$(PEERS)/.done: bench/requirements.lock requirements.lock | $(VENV)/bin/python
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python $(INSTALL) requirements.lock
	@$(PEERS)/bin/python $(INSTALL) $<
	@touch $@
