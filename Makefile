# Each target sets up its own environment in .venv. `make demo` and `make test` are all a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint audit setup docs clean

setup: $(VENV)/.installed

# torch goes first and pinned: a free resolver would fetch several gigabytes of CUDA wheels. The last step adds the published
# code of other trainers, for the tests of the adapters only; it is not on the import path of anything else. axe-core, which finds
# faults of accessibility in the tests of the annotation app, comes from npm where there is one.
$(VENV)/.installed: pyproject.toml constraints.txt tests/adapters/consumers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/consumers -r tests/adapters/consumers.txt
	if command -v npm > /dev/null; then mkdir -p $(VENV)/axe && cd $(VENV)/axe && \
		npm pack --silent axe-core@4.14.1 > /dev/null && tar xzf axe-core-*.tgz --strip-components=1 package/axe.min.js; fi
	touch $@

demo: setup
	$(BIN)/guerdon demo --output runs/demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Known vulnerabilities of the pinned versions. Needs a network that reaches the advisories; the tool has an environment of its own.
audit:
	test -x $(VENV)/audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet pip-audit)
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

docs: setup
	COLUMNS=100 $(BIN)/guerdon train --help > docs/train-options.txt
