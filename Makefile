# Each target sets up its own environment in .venv. `make demo` and `make test` are all a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint setup docs clean

setup: $(VENV)/.installed

# torch goes first and pinned: a free resolver would fetch several gigabytes of CUDA wheels. The last step adds the published
# code of other trainers, for the tests of the adapters only; it is not on the import path of anything else.
$(VENV)/.installed: pyproject.toml constraints.txt tests/adapters/consumers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/consumers -r tests/adapters/consumers.txt
	touch $@

demo: setup
	$(BIN)/guerdon demo --output runs/demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

docs: setup
	COLUMNS=100 $(BIN)/guerdon train --help > docs/train-options.txt
