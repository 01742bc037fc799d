# Everything starts here: `make demo` and `make test` install what they need and say so.
# A second run installs nothing and is quick. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
GUEST  := build/guest
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint unit check-clean setup-run setup-dev guest cloud-guest completion clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: setup-run guest ## boot a VM from the seed's manifest, look at it, shut it down (no cluster)
	@$(BIN)/python scripts/demo.py

test: setup-dev guest ## everything: style, types, layers, units, real QEMU, real network, real guests
	@$(MAKE) --no-print-directory lint
	@scripts/check-clean before
	$(BIN)/python -m pytest
	@scripts/check-clean after

lint: setup-dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup-dev ## the tests that need neither root nor a guest
	$(BIN)/python -m pytest -m "not root and not guest and not slow"

guest: ## the demo guest: a small Linux from Debian's kernel and busybox (build/guest)
	@scripts/install-packages images/packages.txt
	@$(PYTHON) images/build.py demo-guest --output $(GUEST)

cloud-guest: ## a full Debian cloud image with cloud-init and qemu-guest-agent (build/guest)
	@scripts/install-packages images/packages.txt
	@$(PYTHON) images/build.py cloud-guest --output $(GUEST)

setup-run: $(VENV)/installed-run
setup-dev: $(VENV)/installed-dev

$(VENV)/installed-run: pyproject.toml scripts/packages.txt
	@scripts/install-packages scripts/packages.txt
	@echo "Installing Python packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -e '.[launcher,netsetup]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-run
	@echo "Installing Python packages for the tests into $(VENV)"
	@$(PIP) install -e '.[launcher,netsetup,operator,dev]'
	@touch $@

clean: ## remove the virtual environment and what was built
	rm -rf $(VENV) build
