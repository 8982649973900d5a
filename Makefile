# `make` alone lists the targets. `run` and `test` do all their set-up themselves: Python 3.11 to 3.13, make and git are enough.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL: # two targets never install into the one .venv at a time
.PHONY: help run test test-fast check docs soak audit bench clean

EXPERIMENT ?= dnd/tiny
# What the tests read beside the sources of dnd/tiny; after this they need no network.
TEST_SOURCES ?= languages page-layout
PYTEST_FLAGS ?=
# Two processes test; a file stays with one of them, so what its tests share is made once. `WORKERS=` alone: one process.
WORKERS ?= -n 2 --dist loadfile

PY := .venv/bin/python
# Stamps of finished installs. They carry the folder, since an editable install is bound to it: a moved clone installs anew.
HERE := $(shell pwd | cksum | cut -d ' ' -f 1)
BASE := .venv/.base-$(HERE)
DEV := .venv/.dev-$(HERE)

help: ## list the targets
	@echo "fulgurite: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo "  (PYTHON=/path/to/python chooses the interpreter, EXPERIMENT=hello what is run, PYTEST_FLAGS='-k name' what is tested)"

$(BASE): pyproject.toml constraints.txt .ci/set_up
	@.ci/set_up
	@touch $@

$(DEV): pyproject.toml constraints.txt .ci/set_up
	@.ci/set_up dev,docs,gamecraft,chunking,viki,sweep,ray,slurm,demo
	@touch $(BASE) $@

run: $(BASE) ## install, and run an experiment to its report (dnd/tiny: about 6 minutes on 2 cores after the downloads)
	@$(PY) -m fulgurite run $(EXPERIMENT)

test: $(DEV) ## install, fetch what the tests read, and run the whole suite
	@$(PY) -m fulgurite fetch --for dnd/tiny
	@$(PY) -m fulgurite fetch $(TEST_SOURCES)
	@$(PY) -m pytest $(WORKERS) $(PYTEST_FLAGS)

test-fast: $(DEV) ## the suite without its slow tests, and without fetching
	@$(PY) -m pytest -m "not slow and not soak" $(WORKERS) $(PYTEST_FLAGS)

check: $(DEV) ## lint, format, types, spelling
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@mkdir -p .typing && ln -sfn .. .typing/fulgurite
	@$(PY) -m mypy
	@$(PY) -m codespell_lib .

docs: $(DEV) ## build the documentation site into site/, strictly and without a network
	@mkdir -p .typing && ln -sfn .. .typing/fulgurite
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=.typing $(PY) -m mkdocs build --quiet
	@echo "site/index.html"

soak: $(DEV) ## repeated faults at random moments and long fuzzing (two hours or so)
	@$(PY) -m pytest -m soak --timeout 7200 $(PYTEST_FLAGS)

audit: $(DEV) ## known vulnerabilities and secrets; says SKIPPED for what can't be reached
	@.ci/audit

bench: $(BASE) ## what the framework costs per training step, against bare Lightning
	@$(PY) -m fulgurite bench overhead

clean: ## remove what builds, checks and tests left; .venv, runs and the cache stay
	rm -rf build dist site *.egg-info .typing .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
