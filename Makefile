# Everything a person does with the project. `make` alone lists it.
JOB ?= mnist-small
RUN_ARGS ?=
TORTURE_MINUTES ?= 30
FUZZ_SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && \
  $$p -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_FUZZ := $(VENV)/.installed-fuzz
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
LOCK := $(COMPILE) pyproject.toml --extra pipelines --extra serving --extra s3 --extra azure

IMAGE = $(shell $(BIN)/textdiffusion image)
REVISION = $(shell $(BIN)/python -P -m local.version)
SOURCE = $(shell test -e .git && git config --get remote.origin.url 2>/dev/null | sed -E 's|//[^/@]*@|//|' | grep . || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help setup run-local test test-slow test-container test-gcsfuse test-kubeflow azurite versitygw lint format compile run-pipeline image push benchmark torture fuzz audit report lock lock-cpu clean docs

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  \033[1mmake %-14s\033[0m %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## the environment in .venv (every target below sees to it by itself)

run-local: $(INSTALLED)  ## train, sample and judge on this machine; JOB=mnist-small, RUN_ARGS='--set train.minutes=2'
	@$(BIN)/textdiffusion run $(JOB) $(RUN_ARGS)

PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED_DEV) lint  ## the tests, but for the longest
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED_DEV)  ## the longest tests: whole pipelines that are killed, the whole way on both services
	$(PYTEST) -m slow

lint: $(INSTALLED_DEV)  ## ruff, mypy, and the arrows between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(INSTALLED_DEV)  ## the documentation as a site in site/, built strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

format: $(INSTALLED_DEV)  ## formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: JOB = all
compile: $(INSTALLED)  ## build/pipelines/*.yaml for Vertex and Kubeflow; JOB=all
	@$(BIN)/textdiffusion compile $(JOB)

run-pipeline: JOB = mnist-training
run-pipeline: $(INSTALLED)  ## compile, check and submit to Vertex; JOB=mnist-training
	@$(BIN)/textdiffusion run $(JOB) --runner vertex $(RUN_ARGS)

image: $(INSTALLED)  ## the image of all steps, by docker; its tag is the hash of its content; BEAM=1: with Beam too
	DOCKER_BUILDKIT=1 docker build --file containers/Dockerfile $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(SOURCE) --tag $(IMAGE) .
	printf 'FROM %s\nUSER 0\n' $(IMAGE) | docker build --tag $(IMAGE)-trials -
	$(if $(BEAM),DOCKER_BUILDKIT=1 docker build --file containers/beam.Dockerfile --build-arg IMAGE=$(IMAGE) --tag $(IMAGE)-beam .)

push: $(INSTALLED)  ## the same by Cloud Build, into the registry that `image:` in textdiffusion.yaml names
	$(BIN)/textdiffusion image --push $(if $(BEAM),--beam) --revision "$(REVISION)" --source "$(SOURCE)"

test-container: $(INSTALLED_DEV)  ## the image in a real engine: the digits pipeline in it, against the same run here
	$(BIN)/python -m tests.container

test-gcsfuse: $(INSTALLED_DEV)  ## the digits pipeline in a bucket that the real gcsfuse mounts; needs Go and /dev/fuse
	$(BIN)/python -m tests.gcsfuse

test-kubeflow: $(INSTALLED_DEV)  ## what Kubeflow Pipelines' own compiler makes of all jobs; KFP=a checkout of it; needs Go
	TEXTDIFFUSION_KFP=$(KFP) $(BIN)/python -m pytest -q -rs -p no:xdist tests/pipelines/kubeflow/test_argo.py

azurite: $(INSTALLED_DEV)  ## Azure's own storage server for the tests of abfs://, into .venv; needs npm
	npm install --silent --no-package-lock --prefix $(VENV)/azurite azurite@3.37.0

versitygw: $(INSTALLED_DEV)  ## a second S3 server for the tests, into .venv; needs Go, and some minutes
	GOBIN=$(abspath $(VENV))/bin CGO_ENABLED=0 go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

benchmark: $(INSTALLED_DEV)  ## the short form of benchmarks/
	$(BIN)/python -m benchmarks

torture: $(INSTALLED_DEV)  ## kills, breaks and misfeeds everything for half an hour; TORTURE_MINUTES=30
	$(BIN)/python -m tests.torture --minutes $(TORTURE_MINUTES)

fuzz: $(INSTALLED_FUZZ)  ## feeds every parser what its coverage suggests, by atheris; FUZZ_SECONDS=60 for each (Linux)
	$(BIN)/python -m tests.torture.guided --seconds $(FUZZ_SECONDS)

audit: $(INSTALLED_DEV)  ## known vulnerabilities of what is locked, by pip-audit; needs pypi.org
	$(BIN)/python -m pip_audit --strict --disable-pip --require-hashes -r requirements.lock

lock: $(INSTALLED_DEV)  ## writes the lock files anew from pyproject.toml
	$(LOCK) -o requirements.lock
	$(LOCK) --extra dev --extra export --extra huggingface --extra heic -c requirements.lock -o requirements-dev.lock
	$(LOCK) --extra beam -c requirements.lock -o containers/requirements-beam.lock
	$(COMPILE) --group fuzz -o requirements-fuzz.lock

lock-cpu: $(INSTALLED_DEV)  ## requirements.lock without CUDA, for Linux on amd64; needs download.pytorch.org
	$(subst --universal,--python-platform x86_64-manylinux_2_28 --torch-backend cpu,$(LOCK)) -o requirements.lock
	sed -i '1i --extra-index-url https://download.pytorch.org/whl/cpu' requirements.lock

clean:  ## removes what can be made again (not runs/ and registry/)
	rm -rf build site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 with venv is needed; none was found. Try: make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/pip
	@echo "Installing into $(VENV) (once; torch is large) ..."
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): requirements-dev.lock $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

$(INSTALLED_FUZZ): requirements-fuzz.lock $(INSTALLED_DEV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-fuzz.lock
	@touch $@
