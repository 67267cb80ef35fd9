# `make quickstart` and `make test` work on a bare machine with Python 3.11: they set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export RAY_TQDM ?= 0

JOBS ?= 2
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10
NUMERICAL := not ray and not slow and not chaos and not cluster and not e2e and not package
NUMERICAL_TESTS := $(addprefix tests/,data final models training)

.PHONY: setup quickstart test test-slow test-elsewhere check chaos e2e e2e-cluster e2e-cluster-short package test-python format docs lock peers bench-short clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml tools/install.sh
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "segbench is locked for Python 3.11; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	sh tools/install.sh $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

quickstart: $(READY)  ## the main job on generated street scenes, a few minutes on two cores
	$(BIN)/python -m segbench.sweep sweeps/quickstart.yaml

check: $(READY)  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check  ## style, types and the tests, but for the slow ones
	$(PYTEST)

test-slow: $(READY)  ## the tests that take more than ten seconds each: kills, drained nodes, exports, benchmarks
	$(PYTEST) -m 'slow and not chaos and not cluster and not e2e and not package'

test-elsewhere: $(READY)  ## the numerical tests as processors without and with bf16 compute, once in random order
	ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m '$(NUMERICAL)' $(NUMERICAL_TESTS)
	SEGBENCH_TEST_PRECISION=bf16 $(PYTEST) -v -m '$(NUMERICAL)' -p randomly $(NUMERICAL_TESTS)

package: $(READY)  ## the wheel beside a user's packages, and with the oldest allowed ones, outside the checkout
	$(BIN)/pytest -q -m package tests/package

test-python:  ## PYTHON=python3.13: the wheel, and all tests that need no torch, under another Python
	$(MAKE) setup PYTHON=python3
	sh tools/test_python.sh $(BIN)/uv $(PYTHON)

chaos: $(READY)  ## SIGKILL at dozens of random moments; SEGBENCH_CHAOS_SEED=n repeats one
	$(BIN)/pytest -q -s -m chaos tests/chaos

e2e: $(READY)  ## the report and the documents in headless Chromium; screenshots in build/e2e
	$(BIN)/pytest -q -m e2e tests/e2e

e2e-cluster: $(READY)  ## a sweep on isolated machines, as the README says, and machines that go away; root on Linux
	$(BIN)/pytest -q -s -m cluster tests/cluster

e2e-cluster-short: $(READY)  ## the sweep and autoscaling only: what CI has time for
	$(BIN)/pytest -q -s -m cluster tests/cluster/test_local.py tests/cluster/test_growing.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## tables in docs/spec.md from the schema; the site in build/site, where a warning is an error
	$(BIN)/python -m segbench.spec.docs docs/spec.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lock: $(READY)  ## what pyproject.toml asks for, at the versions of today's lock; UPGRADE=1: at the newest
	sh tools/lock.sh $(BIN)/uv $(UPGRADE)

peers: .peers/.ready  ## the environment of the benchmarks' peers

.peers/.ready: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

bench-short: peers  ## does each benchmark beside peers run? minutes; the figures mean nothing
	for name in train_step epoch metric pair; do PYTHONPATH=. .peers/bin/python benchmarks/$$name.py --quick || exit 1; done

clean:
	rm -rf $(VENV) runs build *.egg-info
