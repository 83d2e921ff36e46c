# `make demo` and `make test` work on a bare machine with Python >= 3.10 and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test test-all lint format bench docs clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "lnsgd needs Python >= 3.10; say which with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(INSTALLED)
	$(BIN)/lnsgd reproduce cornacchia-mnist --scale ci

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@for script in scripts/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	rm -rf build/docs docs/api/generated
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html docs build/docs
	@echo "Read build/docs/index.html"

clean:
	rm -rf .venv build dist docs/api/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache
