# Every target sets up what it needs in .venv; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
CORE := .venv/.core
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-engines lint bench board clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## make .venv and install pneumo with its tools into it; PYTHON=python3.12 chooses the Python

# Stamps are written last and depend on pyproject.toml: a broken or outdated installation is repeated.
# Python compiles what it imports; pip would compile all of PyTorch first.
$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else \
		f"pneumo needs Python 3.10 to 3.13, and $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile --editable .
	@touch $@

$(READY): $(CORE)
	$(BIN)/pip install --quiet --no-compile --editable '.[test]'
	@touch $@

demo: $(CORE) ## train on phantoms: a minute or two on two cores, no data, no network
	@$(BIN)/python train.py experiment=demo
	@printf '\nWhat next:\n'
	@printf '  %s\n      %s\n' \
		'make board' 'look at the curves in TensorBoard' \
		'$(BIN)/python train.py model=efficientnet_lite0 optimizer=adagrad' \
			'a real run, which downloads the radiographs (1.2 GB) once; data.root=FOLDER names a copy' \
		'$(BIN)/python train.py --help' 'all models, optimizers and settings'

test: $(READY) ## run the test suite: some minutes on two cores, no network
	@$(BIN)/pytest -n 2 --dist worksteal -m 'not slow and not real and not browser and not engine'

test-slow: $(READY) ## run the tests that kill, stop and repeat whole runs and sweeps: some minutes more
	@$(BIN)/pytest -n 2 --dist worksteal -m 'slow and not real and not browser and not engine'

test-engines: $(READY) ## run the sweeps on joblib, Ray and Slurm, and the pages in Chromium: some minutes, as root on Debian
	$(BIN)/pip install --quiet --editable '.[test,ray,slurm,browser]'
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }
	@$(BIN)/pytest -m 'engine or browser' --durations=8

lint: $(READY) ## check style, formatting, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY) ## measure every claim about speed on phantoms, some minutes each; FULL=--full: on PNEUMO_DATA_ROOT
	@for script in $(filter-out %/harness.py %/plain.py,$(wildcard benchmarks/*.py)); do \
		echo "$$script $(FULL)"; $(BIN)/python $$script $(FULL) || exit 1; done

board: $(CORE) ## open TensorBoard on what runs have written
	@$(BIN)/tensorboard --logdir outputs --host 127.0.0.1

clean: ## remove .venv and what tools left; outputs/ and data/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
