# r1mm.  The two commands: `make reproduce-r1v` and `make test`.  Each sets up all it needs in .venv and asks nothing.
#
#   make reproduce-r1v [VARIANT=images-fixed|as-published|as-fixed|format-fixed|all] [SEED=1] [BASE_SEED=1] [RUNS=runs] [FRESH=1]
#   make reproduce-video [VARIANT=as-fixed|as-published-22feb|...]
#   make reproduce-distill [VARIANT=all|grpo|sft|sft-grpo]
#   make reproduce-mm8k [VARIANT=ours|released|head|...]  and each takes
#                      [LAUNCH=auto|local|compose] [IMAGE=name or id of an image that the engine holds]
#                      [GPUS=8xA100-80G|1xH100-80G|...] [ASSETS=folder that serves every asset] [PAST_GATE=1] [SEED=1,2,3]
#
# Where images are built: BASE_IMAGE=NAME@sha256:... another base, CA_BUNDLE=FILE certificates of a proxy that inspects
# TLS, WHEELS=DIR packages from a folder.  Where containers run: R1MM_MEMORY, R1MM_SHM, HF_TOKEN_FILE, DASHBOARD_PORT.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that will do, by its real path: inside an activated .venv that is still the one it was made with.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	"$$p" -c 'import os, sys; (3, 11) <= sys.version_info[:2] <= (3, 12) or sys.exit(1); print(os.path.realpath(sys.executable))' 2>/dev/null && break; done)
VENV := .venv
READY := $(VENV)/.ready
UV := $(VENV)/bin/uv
R1MM := $(VENV)/bin/r1mm
EVALUATOR := .evaluator
LOCKS := docker/locks
RESOLVE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

SEED ?= 1
RUNS ?= runs
LAUNCH ?= auto
JOB = --launch $(LAUNCH) $(if $(IMAGE),--image $(IMAGE)) --seed $(SEED) --runs $(RUNS) $(if $(VARIANT),--variant $(VARIANT)) $(if $(BASE_SEED),--base-seed $(BASE_SEED)) $(if $(FRESH),--fresh) \
	$(if $(GPUS),--gpus $(GPUS)) $(if $(ASSETS),--assets $(ASSETS)) $(if $(PAST_GATE),--past-gate)

# Only what is set: an empty variable is not an absent one.
$(foreach name,BASE_IMAGE CA_BUNDLE WHEELS R1MM_MEMORY R1MM_SHM HF_TOKEN_FILE DASHBOARD_PORT,$(if $($(name)),$(eval export $(name))))

.PHONY: help setup reproduce-r1v reproduce-video reproduce-distill reproduce-mm8k images image-cpu image-gpu image-evaluator dashboard doctor test test-unit test-recipes test-containers \
	test-evaluator test-all lint locks clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

reproduce-r1v: $(READY) ## run R1-V to its verdict and report (without a GPU: the miniature)
	@$(R1MM) reproduce r1v $(JOB)

reproduce-video: $(READY) ## run Open-R1-Video to its verdict and report (without a GPU: the miniature)
	@$(R1MM) reproduce video $(JOB)

reproduce-distill: $(READY) ## distill, fine-tune, GRPO: R1-V's three ways side by side (without a GPU: the miniature)
	@$(R1MM) reproduce distill $(JOB) $(if $(VARIANT),,--variant all)

reproduce-mm8k: $(READY) ## run open-r1-multimodal to its verdict and report (without a GPU: the miniature)
	@$(R1MM) reproduce mm8k $(JOB)

test: lint test-unit test-recipes ## lint, unit tests, the R1-V miniature end to end

test-all: lint test-unit test-containers ## all tests: adds containers, the other code era and the other miniatures
	$(VENV)/bin/pytest tests/recipes

lint: $(READY) ## ruff, mypy (strict), hadolint, compose-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/hadolint docker/*.Dockerfile
	$(VENV)/bin/compose-lint --fail-on high compose.yaml docker/compose.gpu.yaml

test-unit: $(READY) ## unit tests, under 90 seconds; two workers, a thread each
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest tests/unit --numprocesses 2 --dist loadfile

test-recipes: $(READY) ## the miniature end to end against its reference rows
	$(VENV)/bin/pytest tests/recipes -m "not whole"

test-containers: $(READY) ## containers, against the engine that DOCKER_HOST or the default socket names
	$(VENV)/bin/pytest tests/containers

test-evaluator: $(READY) $(EVALUATOR)/.ready ## the bridge to lmms-eval with the real lmms-eval (R1MM_EVALUATOR_PYTHON: one you have)
	R1MM_EVALUATOR_PYTHON="$${R1MM_EVALUATOR_PYTHON:-$(abspath $(EVALUATOR))/bin/python}" $(VENV)/bin/pytest tests/recipes/test_lmms.py \
		tests/recipes/test_mm8k_full.py::test_its_benchmarks_are_asked_by_lmms_eval

images: image-cpu image-gpu ## build both images that most recipes need

image-cpu: $(READY) ## build the image of the miniatures
	@$(R1MM) image cpu

image-gpu: $(READY) ## build the image of the full recipes (CUDA, vLLM, deepspeed)
	@$(R1MM) image trainer

image-evaluator: $(READY) ## build the image of evaluations by lmms-eval (the one before, and lmms-eval beside it)
	@$(R1MM) image evaluator

dashboard: $(READY) ## curves of all runs in a browser, on 127.0.0.1:6006 (DASHBOARD_PORT=)
	@$(R1MM) dashboard --runs $(RUNS) --launch $(if $(filter compose,$(LAUNCH)),compose,local)

setup: $(READY) ## create .venv from the locks

# The stamp is written last: a set-up that was cut short is done again.
$(READY): $(LOCKS)/bootstrap.txt $(LOCKS)/build.txt $(LOCKS)/cpu.txt $(LOCKS)/dev.txt $(LOCKS)/sharding.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "r1mm needs Python 3.11 or 3.12; found: $$(python3 --version 2>&1 || true). Install one, or say which: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; fi
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 12) or sys.exit("r1mm needs Python 3.11 or 3.12; $(PYTHON) is %d.%d. Say which to use: make PYTHON=/path/to/python3.12" % v)'
	@echo "set-up: $(VENV) with $$("$(PYTHON)" --version), packages by hash from $(LOCKS)/cpu.txt (about 5 GB, once)"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/bootstrap.txt
	@# deepspeed has no wheel; its kernels are compiled when first used, not here.
	@DS_BUILD_OPS=0 $(UV) pip install --quiet --python $(VENV)/bin/python --compile-bytecode --require-hashes \
		--build-constraints $(LOCKS)/build.txt -r $(LOCKS)/cpu.txt -r $(LOCKS)/dev.txt -r $(LOCKS)/sharding.txt
	@$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

# lmms-eval's own environment where a container's is not at hand; none is made where one is named.
$(EVALUATOR)/.ready: $(LOCKS)/evaluator.txt $(LOCKS)/build.txt | $(READY)
ifeq ($(R1MM_EVALUATOR_PYTHON),)
	@echo "set-up: $(EVALUATOR), lmms-eval's packages by hash from $(LOCKS)/evaluator.txt (about 6 GB, once)"
	@$(UV) venv --quiet --clear --python $(VENV)/bin/python $(EVALUATOR)
	@$(UV) pip install --quiet --python $(EVALUATOR)/bin/python --compile-bytecode --require-hashes \
		--build-constraints $(LOCKS)/build.txt -r $(LOCKS)/evaluator.txt
	@touch $@
endif

locks: $(READY) ## resolve docker/locks/*.txt again from pyproject.toml
	$(RESOLVE) pyproject.toml -o $(LOCKS)/cpu.txt
	$(RESOLVE) pyproject.toml --extra gpu -o $(LOCKS)/gpu.txt
	$(RESOLVE) --group dev --constraints $(LOCKS)/cpu.txt -o $(LOCKS)/dev.txt
	$(RESOLVE) --group sharding --no-deps -o $(LOCKS)/sharding.txt
	$(RESOLVE) --group evaluator -o $(LOCKS)/evaluator.txt
	$(RESOLVE) --group bootstrap -o $(LOCKS)/bootstrap.txt
	$(RESOLVE) --group sbom -o $(LOCKS)/sbom.txt
	$(RESOLVE) --group build -o $(LOCKS)/build.txt

doctor: $(READY) ## check that this machine can run it
	@$(R1MM) doctor --runs $(RUNS) --launch $(LAUNCH) $(if $(GPUS),--gpus $(GPUS))

clean: ## remove .venv, .evaluator, caches and the images built here; runs are kept
	@if docker version >/dev/null 2>&1; then for image in r1mm-cpu r1mm-trainer r1mm-evaluator \
		$$(docker image ls --quiet --filter dangling=true --filter label=r1mm.lock.sha256); do \
		docker image rm --force $$image 2>/dev/null || true; done; fi
	rm -rf $(VENV) $(EVALUATOR) .mypy_cache .pytest_cache .ruff_cache
