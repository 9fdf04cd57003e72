# Every target installs its requirements in .venv; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.core
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-engines lint bench board clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## create .venv and install pneumo and its tools; PYTHON=python3.12 selects the interpreter

# Stamps are written last and depend on pyproject.toml, so that failed and outdated installations are repeated.
# --no-compile: pip would compile all of PyTorch, while Python compiles only imported modules.
$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else \
		f"pneumo requires Python 3.10 to 3.13, but $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile --editable .
	@touch $@

$(READY): $(CORE)
	$(BIN)/pip install --quiet --no-compile --editable '.[test]'
	@touch $@

demo: $(CORE) ## train on phantoms: one or two minutes on two cores, without data or internet access
	@$(BIN)/python train.py experiment=demo
	@printf '\nNext steps:\n'
	@printf '  %s\n      %s\n' \
		'make board' 'show the curves in TensorBoard' \
		'$(BIN)/python train.py model=efficientnet_lite0 optimizer=adagrad' \
			'train on real radiographs, downloaded once (1.2 GB); data.root=FOLDER uses an existing copy' \
		'$(BIN)/python train.py --help' 'list all models, optimizers and settings'

test: $(READY) ## run the test suite: several minutes on two cores, without internet access
	@$(BIN)/pytest -n 2 --dist worksteal -m 'not slow and not real and not browser and not engine'

test-slow: $(READY) ## run the tests that kill, stop and repeat whole runs and sweeps: several more minutes
	@$(BIN)/pytest -n 2 --dist worksteal -m 'slow and not real and not browser and not engine'

test-engines: $(READY) ## test joblib, Ray and Slurm sweeps and web pages in Chromium: several minutes, as root on Debian
	$(BIN)/pip install --quiet --editable '.[test,ray,slurm,browser]'
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }
	@$(BIN)/pytest -m 'engine or browser' --durations=8

lint: $(READY) ## check style, formatting, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) ## run the speed benchmarks on phantoms, several minutes each; FULL=--full uses PNEUMO_DATA_ROOT
	@for script in $(filter-out %/harness.py %/plain.py %/development_sets.py %/combinations.py,$(wildcard benchmarks/*.py)); do \
		echo "$$script $(FULL)"; $(BIN)/python $$script $(FULL) || exit 1; done

board: $(CORE) ## start TensorBoard on the results in outputs/
	@$(BIN)/tensorboard --logdir outputs --host 127.0.0.1

clean: ## remove .venv and the caches of tools; keep outputs/ and data/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
