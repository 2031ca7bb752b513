# r1mm.  The two commands: `make reproduce-r1v` and `make test`.  Each sets up all it needs in .venv and asks nothing.
#
#   make reproduce-r1v [VARIANT=images-fixed|as-published|as-fixed|format-fixed|all] [SEED=1] [BASE_SEED=1] [RUNS=runs] [FRESH=1]

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
READY := $(VENV)/.ready
UV := $(VENV)/bin/uv
R1MM := $(VENV)/bin/r1mm
LOCKS := docker/locks

SEED ?= 1
RUNS ?= runs
JOB = --seed $(SEED) --runs $(RUNS) $(if $(VARIANT),--variant $(VARIANT)) $(if $(BASE_SEED),--base-seed $(BASE_SEED)) $(if $(FRESH),--fresh)

.PHONY: help setup reproduce-r1v test test-unit test-recipes test-all lint locks doctor clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

reproduce-r1v: $(READY) ## run R1-V to its verdict and report (here: the miniature)
	@$(R1MM) reproduce r1v-mini $(JOB)

test: lint test-unit test-recipes ## lint, unit tests, the R1-V miniature end to end

test-all: lint test-unit ## all tests: adds the miniature's other code era
	$(VENV)/bin/pytest tests/recipes

lint: $(READY) ## ruff and mypy (strict)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test-unit: $(READY) ## unit tests, under 90 seconds
	$(VENV)/bin/pytest tests/unit

test-recipes: $(READY) ## the miniature end to end against its reference rows
	$(VENV)/bin/pytest tests/recipes -m "not whole"

setup: $(READY) ## create .venv from the locks

# The stamp is written last: a set-up that was cut short is done again.
$(READY): $(LOCKS)/bootstrap.txt $(LOCKS)/cpu.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "r1mm needs Python 3.11 or 3.12; found: $$(python3 --version 2>&1 || true). Install one, or say which: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; fi
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 12) or sys.exit("r1mm needs Python 3.11 or 3.12; $(PYTHON) is %d.%d. Say which to use: make PYTHON=/path/to/python3.12" % v)'
	@echo "set-up: $(VENV) with $$("$(PYTHON)" --version), packages by hash from $(LOCKS)/cpu.txt (about 5 GB, once)"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/bootstrap.txt
	@$(UV) pip install --quiet --python $(VENV)/bin/python --compile-bytecode --require-hashes -r $(LOCKS)/cpu.txt
	@$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

locks: $(READY) ## resolve docker/locks/*.txt again from pyproject.toml
	$(UV) pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --custom-compile-command "make locks" -o $(LOCKS)/cpu.txt
	echo "uv" | $(UV) pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o $(LOCKS)/bootstrap.txt

doctor: $(READY) ## check that this machine can run it
	@$(R1MM) doctor --runs $(RUNS)

clean: ## remove .venv and caches; runs are kept
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
