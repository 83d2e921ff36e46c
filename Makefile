# `make demo` and `make test` need only Python >= 3.11 and make; the first of them creates .venv. The developers' tools are
# installed by the first target that needs them.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPMENT := .venv/.installed-dev

# Continuous integration installs the versions of constraints.txt; everyone else gets the newest that fit.
LOCKED := $(if $(CI),--constraint constraints.txt)

# uv installs several times as fast as pip. The redirection makes old versions of make ask a shell, which knows `command`.
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)

# Run a command; show its output only if it fails.
quietly = $(1) > .venv/install.log 2>&1 || { status=$$?; cat .venv/install.log >&2; exit $$status; }

.PHONY: install install-dev demo test test-all test-lowest lock sbom licenses lint format bench gpu docs wheel clean

install: $(INSTALLED)

install-dev: $(DEVELOPMENT)

$(INSTALLED): pyproject.toml $(if $(CI),constraints.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lnsgd needs Python >= 3.11; name one with PYTHON=..."; exit 1; }
	@echo "Installing lnsgd and its dependencies into .venv with $(if $(UV),uv,pip); this takes minutes. The log is .venv/install.log."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(call quietly,$(INSTALL) $(LOCKED) --editable .)
	@touch $@
	@echo "Installed: .venv/bin/lnsgd"

# Only pip >= 25.1 knows dependency groups.
$(DEVELOPMENT): $(INSTALLED)
	@echo "Installing the developers' tools into .venv with $(if $(UV),uv,pip). The log is .venv/install.log."
	@$(if $(UV),,$(call quietly,$(INSTALL) --upgrade "pip>=25.1"))
	@$(call quietly,$(INSTALL) $(LOCKED) --editable . --group dev)
	@touch $@

demo: $(INSTALLED)
	$(BIN)/lnsgd reproduce cornacchia-mnist --scale ci

test: $(DEVELOPMENT)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(DEVELOPMENT)
	$(BIN)/python -m pytest -n 2

# Test with the lowest versions that pyproject.toml allows for its direct dependencies, in a separate environment.
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
	@echo "# The versions that continuous integration installs (\`make install CI=true\`); written by \`make lock\`." > constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
		--group pyproject.toml:dev pyproject.toml >> constraints.txt

# Write a bill of materials (CycloneDX) of the packages in .venv.
sbom: $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet uv
	@mkdir -p build
	$(BIN)/uv tool run --from cyclonedx-bom cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
		--output-format JSON --output-file build/sbom.json

# List the licenses of the dependencies; fail if one of them demands more of lnsgd than its own license, MIT.
licenses: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv tool run pip-licenses --python=$(BIN)/python --order=license --partial-match --fail-on="GPL;Affero" --packages \
		$$($(BIN)/uv pip compile --quiet --python $(BIN)/python --no-header --no-annotate pyproject.toml | cut -d= -f1)

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEVELOPMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@for script in scripts/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# Run the tests, benchmarks and figures that need CUDA; MINUTES=9 fits a short slot, and the next call continues.
# DEVICE=cpu rehearses it. Exit code 75 (the time is up) is not an error.
gpu: $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m scripts.gpu --device $(or $(DEVICE),cuda) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(OUT),--out $(OUT)) \
		|| [ $$? = 75 ]

docs: $(DEVELOPMENT)
	$(BIN)/python -m pip install --quiet --group docs
	rm -rf build/docs docs/api/generated
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html docs build/docs
	@echo "Read build/docs/index.html"

# The wheel in dist, installed with its dependencies into an environment of its own and imported from another folder.
wheel: $(DEVELOPMENT)
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet $(LOCKED) dist/*.whl
	cd build && wheel/bin/python -c 'import lnsgd.callbacks, lnsgd.training' && wheel/bin/lnsgd --version

clean:
	rm -rf .venv build dist docs/api/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache
