# make repro   run the whole pipeline on the built-in corpus
# make test    run the checks of CI
PYTHON ?= python3
VENV   := .venv
BIN    := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro robustness test fuzz lint ui clean

help:
	@echo "make repro   set up, run the pipeline on the built-in corpus, print the results"
	@echo "make test    set up if need be, check style, types and layers, run the tests"
	@echo "make robustness  after make repro: test the tracer with codecs, noise and rooms"
	@echo "make fuzz    damaged files and requests against every reader, for ten minutes"
	@echo "make ui      open the MLflow store on http://127.0.0.1:5000"
	@echo "make lint    style, types and layers only"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt requirements-local.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("error: makermark needs Python 3.11 to 3.13; this is %d.%d: run make PYTHON=python3.12, or another" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipeline,local,local-full,ssl,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt -r requirements-local.txt
	@touch $@

repro: setup
	@git rev-parse HEAD >/dev/null 2>&1 || { echo "error: no git commit here: makermark ties results to commits; clone the repository with git"; exit 1; }
	dvc repro
	@makermark baseline save
	@makermark log-run || true
	@makermark results

robustness: setup
	dvc exp run --set-param 'robustness.stage=[run]' robustness@run

test: setup lint
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: setup
	python -m pytest tests/fuzz -n 2 --fuzz-minutes 20

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports

ui: setup
	makermark ui

clean:
	rm -rf data models plots reports .makermark
