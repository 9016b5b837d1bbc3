# `make demo` and `make test` do all the set-up they need on a bare machine with Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
JOBS ?= 2

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --durations 10

.PHONY: demo test test-slow test-all lint docs clean

demo: $(VENV)/.core
	$(BIN)/saddlescape demo

# At least one test of each kind, in minutes; what is exhaustive is marked slow.
test: $(VENV)/.all $(VENV)/.browser
	$(BIN)/python tests/guard.py
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.all $(VENV)/.browser
	$(PYTEST) -m slow

test-all: test test-slow

lint: $(VENV)/.all
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.all
	$(BIN)/python -m sphinx -W -b html docs docs/_build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "saddlescape needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# torch first and pinned: a plain resolution would take a CUDA build of several gigabytes.
$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[parquet,report]'
	touch $@

$(VENV)/.all: $(VENV)/.core
	$(PIP) --editable '.[parquet,report,tensorboard,tune,wandb,mlflow,ray,onnx,heif,integrations,lora,browser,docs,test,lint]'
	touch $@

# The report is tested in a real browser: the system's Chromium, installed here where that is allowed. Without one these
# tests are skipped and say why.
$(VENV)/.browser: $(VENV)/.all
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null 2>&1 || \
		echo "no chromium here: the tests of the page in a browser will be skipped"
	touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
