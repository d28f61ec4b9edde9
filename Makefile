# `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWEEP ?= strategy=first_k,last_k,lora
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=25
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all check lint format sweep report claims ui nano bench bench-gpu clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Installed once, and again when the requirements change. constraints.txt pins the whole tested set.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,generators,projected]'
	touch $@

demo: $(VENV)/installed  ## install, train three strategies on the embedded model, draw the report
	$(BIN)/python -m efficient_rl.sweep -m $(SWEEP)
	$(BIN)/python -m analysis.report
	@echo "compare the runs: make ui"

sweep: $(VENV)/installed  ## run SWEEP, e.g. make sweep SWEEP='strategy=full,lora seed=0,1,2'
	$(BIN)/python -m efficient_rl.sweep -m $(SWEEP)

report: $(VENV)/installed  ## draw the report of the newest sweep (or NAME=...)
	$(BIN)/python -m analysis.report $(if $(NAME),sweep=$(NAME))

claims: $(VENV)/installed  ## test published claims on the embedded model and evaluate them on one page (about an hour on two cores)
	for file in sweeps/claims/*.yaml; do $(BIN)/python -m efficient_rl.sweep sweep=claims/$$(basename $$file .yaml) || exit 1; done
	$(BIN)/python -m analysis.claims

ui: $(VENV)/installed  ## serve the MLflow UI and print the page of the newest sweep (or NAME=...)
	$(BIN)/python -m efficient_rl.ui $(if $(NAME),sweep=$(NAME)) $(if $(PORT),port=$(PORT))

test: $(VENV)/installed  ## all tests except the slow ones, in about ten minutes (tests/slurm/cluster.sh install gives them a Slurm)
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed  ## only the slow tests (two workers: their clusters need the processors themselves)
	$(PYTEST) -n 2 -m slow

test-all: $(VENV)/installed  ## every test
	$(PYTEST)

check: lint test  ## format, lint, types, and all tests except the slow ones

lint: $(VENV)/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

nano: $(VENV)/installed  ## make the embedded model again from its seed (about 40 minutes on one core)
	$(BIN)/python -m efficient_rl.nano.make

bench: $(VENV)/installed  ## one training step against stock TRL, and every strategy against full training (15 minutes)
	$(BIN)/python -m benchmarks.training

bench-gpu: $(VENV)/installed  ## the same at Qwen2.5-0.5B's shape, on the GPU of this machine; needs no network
	$(BIN)/python -m benchmarks.training_gpu

clean:  ## remove the environment and caches; results (outputs/, reports/, mlflow.db) stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
