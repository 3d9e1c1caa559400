# `make demo` and `make test` build .venv on first use and need nothing else. PYTHON: any Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Workers side by side, each with its share of the processor (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
# What an editable install is made of: a change to any of them builds it again.
BUILT := pyproject.toml setup.py $(wildcard csrc/*)

.PHONY: demo test test-fast test-backends snapshots check check-native check-wheel check-wheel-environment bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/groupcc demo --out runs/demo

test: $(VENV)/dev.stamp $(VENV)/axe.stamp
	$(PYTEST)

# While working: what a change breaks most often. Cases that take seconds are left out (`pytest -m slow` runs them).
test-fast: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow"

# What calls ops without choosing a backend, on each named one in turn: a named backend must run all of the product.
test-backends: $(VENV)/dev.stamp
	for backend in cpp reference; do \
	  GROUPCC_BACKEND=$$backend $(PYTEST) -m "not slow" $(addprefix tests/,models training analysis causal cli harvesting \
	    visualization zoo) || exit 1; \
	done

# Whether this tree computes the same bits as another commit, on this machine: make snapshots BASE=<commit>
snapshots: $(VENV)/dev.stamp
	$(BIN)/python tests/snapshots/compare.py $(BASE)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-native: $(VENV)/dev.stamp
	$(BIN)/python tests/native/check.py

# Its environment takes minutes to install: CI does that beside the first checks.
check-wheel-environment:
	$(PYTHON) tests/native/wheel.py --prepare

check-wheel: $(VENV)/dev.stamp
	$(BIN)/python tests/native/wheel.py

bench: $(VENV)/dev.stamp
	$(BIN)/groupcc bench
	$(BIN)/python -m pytest benchmarks/bench_ops.py --benchmark-only

clean:
	rm -rf $(VENV) build *.egg-info groupcc/_C*.so

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "groupcc needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BUILT) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[vision,demo]'
	touch $@

$(VENV)/dev.stamp: $(BUILT) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

# For the report's accessibility test, which says that it is skipped where there is no npm, no network or no Chromium.
$(VENV)/axe.stamp: | $(BIN)/python
	-npm install --no-audit --no-fund --loglevel=error --prefix $(VENV)/axe axe-core@4.14.1
	touch $@
