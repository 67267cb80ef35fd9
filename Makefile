# `make quickstart` and `make test` work on a bare machine with Python 3.11: they set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export RAY_TQDM ?= 0

JOBS ?= 2
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10
NUMERICAL := not ray and not slow and not chaos and not cluster and not e2e
NUMERICAL_TESTS := $(addprefix tests/,data final models training)

.PHONY: setup quickstart test test-slow test-elsewhere check chaos e2e e2e-cluster e2e-cluster-short format docs lock peers bench-short clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "segbench is locked for Python 3.11; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
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
	$(PYTEST) -m 'slow and not chaos and not cluster and not e2e'

test-elsewhere: $(READY)  ## the numerical tests as processors without and with bf16 compute, once in random order
	ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m '$(NUMERICAL)' $(NUMERICAL_TESTS)
	SEGBENCH_TEST_PRECISION=bf16 $(PYTEST) -v -m '$(NUMERICAL)' -p randomly $(NUMERICAL_TESTS)

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

lock: $(READY)  ## after `pip install` of something new
	$(BIN)/pip freeze --exclude-editable | grep -v '^-e\|^segbench\|^#' | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > .lock.tmp
	(sed -n '/^#/p' requirements.lock; cat .lock.tmp) > .lock.new && mv .lock.new requirements.lock && rm .lock.tmp

peers: .peers/.ready  ## the environment of the benchmarks' peers

.peers/.ready: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .peers
	.peers/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

bench-short: peers  ## does each benchmark beside peers run? minutes; the figures mean nothing
	for name in train_step epoch metric pair; do PYTHONPATH=. .peers/bin/python benchmarks/$$name.py --quick || exit 1; done

clean:
	rm -rf $(VENV) runs build *.egg-info
