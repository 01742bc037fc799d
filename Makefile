# Everything starts here: `make demo` and `make test` install what they need and say so.
# A second run installs nothing and is quick. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
GUEST  := build/guest
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-e2e lint unit setup-run setup-dev browser podman guest cloud-guest kubernetes cluster images deploy cluster-down bench soak clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: setup-run guest ## boot a VM from the seed's manifest, look at it, shut it down (no cluster)
	@$(BIN)/python scripts/demo.py

test: setup-dev browser podman guest cloud-guest kubernetes images ## everything: style, types, layers, real QEMU, networks, guests, the cluster
	@$(MAKE) --no-print-directory lint
	@scripts/check-clean before
	$(BIN)/python -m pytest --ignore=tests/e2e
	$(BIN)/python -m pytest tests/e2e
	@scripts/check-clean after

test-e2e: setup-dev browser guest cloud-guest kubernetes images ## of the tests, those on a real cluster with real guests
	$(BIN)/python -m pytest tests/e2e

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

kubernetes: ## Kubernetes' programs: from K8S_BIN_DIR, else built once from Debian's source package (about 10 minutes)
	@scripts/install-packages cluster/packages.txt
	@$(PYTHON) cluster/cluster.py build

cluster: kubernetes guest images ## a real single-node Kubernetes on this machine, with qvirt and the seed's VM on it
	@$(PYTHON) scripts/cluster_demo.py

images: setup-run ## the images that qvirt runs from in a cluster: launcher and operator (build/images)
	@scripts/install-packages images/packages.txt images/compiler.txt
	@$(PYTHON) images/build.py launcher --output build/images
	@$(PYTHON) images/build.py launcher-microvm --output build/images
	@$(PYTHON) images/build.py operator --output build/images

bench: setup-dev guest images kubernetes ## measure against baselines and write docs/benchmarks.md (PART=start for one chapter, SIZE=10000 for its size; needs root)
	@$(if $(SIZE),QVIRT_BENCH_SIZE=$(SIZE)) $(BIN)/python -m qvirt_bench $(PART)

soak: setup-dev guest images kubernetes ## an hour of guests, consoles and restarts, and whether anything grows: docs/soak.md (DURATION=600 for shorter; needs root)
	@$(BIN)/python -m qvirt_bench.soak $(if $(DURATION),--duration $(DURATION)) $(if $(GUESTS),--guests $(GUESTS))

deploy: images ## install qvirt on the cluster of KUBECONFIG (REGISTRY=host:port that its nodes pull from)
	@$(PYTHON) operator/deploy.py $(if $(REGISTRY),--registry $(REGISTRY))

cluster-down: ## remove the cluster and everything it made
	@$(PYTHON) cluster/cluster.py down

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

browser:
	@scripts/install-packages tests/e2e/packages.txt

podman:
	@scripts/install-packages tests/edge/packages.txt

clean: ## remove the virtual environment and what was built
	rm -rf $(VENV) build
