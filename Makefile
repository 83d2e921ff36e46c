# `make demo` and `make test` work on a bare machine with Python >= 3.10 and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Continuous integration installs the versions of constraints.txt; anybody else the newest that fit.
LOCKED := $(if $(CI),--constraint constraints.txt)

.PHONY: install demo test test-all test-lowest lock sbom licenses lint format bench docs clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(if $(CI),constraints.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "lnsgd needs Python >= 3.10; say which with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(LOCKED) --editable . --group dev
	@touch $@

demo: $(INSTALLED)
	$(BIN)/lnsgd reproduce cornacchia-mnist --scale ci

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

# The lowest versions that pyproject.toml allows, of what it names itself; in an environment of its own.
test-lowest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	@mkdir -p build
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --resolution lowest-direct --group pyproject.toml:dev \
		pyproject.toml --output-file build/lowest.txt
	test -x build/lowest/bin/python || $(PYTHON) -m venv build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --requirement build/lowest.txt
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --no-deps --editable .
	build/lowest/bin/python -m pytest -n 2 -m "not slow"

lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	@echo "# What continuous integration installs: \`make install CI=true\`. Made anew by \`make lock\`." > constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade --no-header --no-annotate \
		--group pyproject.toml:dev pyproject.toml >> constraints.txt

# A bill of materials (CycloneDX) of what is installed in .venv.
sbom: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	@mkdir -p build
	$(BIN)/uv tool run --from cyclonedx-bom cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
		--output-format JSON --output-file build/sbom.json

# The licenses of what lnsgd needs to run; fails where one asks more of lnsgd than its own, MIT.
licenses: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv tool run pip-licenses --python=$(BIN)/python --order=license --partial-match --fail-on="GPL;Affero" --packages \
		$$($(BIN)/uv pip compile --quiet --python $(BIN)/python --no-header --no-annotate pyproject.toml | cut -d= -f1)

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
