# Everything a newcomer needs, on a machine with Python 3.10 to 3.13 and make. `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
GPU_VENV := .venv-gpu
# The CUDA of the environment that is there, or 12.
CUDA ?= $(patsubst $(GPU_VENV)/.gpu%,%,$(firstword $(wildcard $(GPU_VENV)/.gpu1[23]) 12))
BIN := $(VENV)/bin
# Tests of one file run in one process, so that they share what its fixtures make, in the order of tests/conftest.py.
IN_PROCESSES := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# Processes share what they compile, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help setup setup-gputest setup-gpu demo test test-fast check docs bench gpu-acceptance lock audit clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: $(VENV)/.cpu  ## set up .venv to run on the CPU (locked versions)

demo: $(VENV)/.cpu  ## sample photographs, the main job, a search; says where the results are
	$(BIN)/facemill demo demo

test: $(VENV)/.dev  ## all tests, in a process for each core; some 25 minutes on two cores
	$(BIN)/python -m pytest $(IN_PROCESSES)

test-fast: $(VENV)/.dev  ## the tests that take little CPU time; two minutes on two cores
	$(BIN)/python -m pytest $(IN_PROCESSES) -m "not slow"

check: $(VENV)/.dev  ## ruff, mypy --strict, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks/*.py
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(VENV)/.dev  ## draw the diagrams and build the documentation site into site/; broken links are errors
	$(BIN)/python docs/draw.py
	$(BIN)/zensical build --clean --strict

gpu-acceptance: $(GPU_VENV)/.gpu$(CUDA)  ## what only a GPU can show, in 8 minutes; table in benchmarks/results/
	$(GPU_VENV)/bin/python benchmarks/gpu_acceptance.py

bench: $(VENV)/.dev  ## measure on this machine; tables in benchmarks/results/
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/scale.py start
	$(BIN)/python benchmarks/scale.py memory
	$(BIN)/python benchmarks/scale.py first
	$(BIN)/python benchmarks/scale.py cores
	$(BIN)/python benchmarks/tuner.py
	$(BIN)/python benchmarks/search_exact.py
	$(BIN)/python benchmarks/search_index.py
	$(BIN)/python benchmarks/pairs.py

setup-gputest: $(VENV)/.gputest  ## add TensorRT-RTX, DALI and NVRTC (1.5 GB): more tests of the GPU path; needs no GPU

setup-gpu: $(GPU_VENV)/.gpu$(CUDA)  ## set up .venv-gpu to run on an NVIDIA GPU (several GB); CUDA=13 for a driver from 580 on

# All sets share the versions of the first one, so that they can be installed into one environment.
lock: $(VENV)/.supply  ## resolve requirements/*.txt again from pyproject.toml, and list the base set in sbom.json (CycloneDX)
	rm -f requirements/*.txt
	for set in cpu "cpu dev" "cpu dev gputest" "acceptance gpu" "acceptance gpu13" supply; do \
	  touch requirements/cpu.txt; \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.10 \
	    $$(test "$$set" = cpu || echo --constraint requirements/cpu.txt) --extra build \
	    $$(printf -- '--extra %s ' $$set) -o requirements/$${set##* }.txt pyproject.toml; \
	done
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o requirements/sbom.json \
	  requirements/cpu.txt

audit: $(VENV)/.supply  ## look for known vulnerabilities in all locked packages; needs the network
	for set in cpu gpu gpu13 dev gputest supply; do \
	  $(BIN)/pip-audit --disable-pip --require-hashes -r requirements/$$set.txt || exit 1; \
	done

clean:  ## remove .venv, caches, demo and build output
	rm -rf $(VENV) $(GPU_VENV) demo build dist site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each set holds all of the one before it: the stamp of a smaller one is made too.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("facemill needs Python 3.10 to 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'no venv in this Python; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

# Apart from .venv: faiss-cpu and faiss-gpu overwrite each other. So do the packages of two CUDAs: another one is begun anew.
$(GPU_VENV)/.gpu%: pyproject.toml
	@case '$*' in 12|13) ;; *) echo 'CUDA is $*; expected: 12 or 13, such as: make setup-gpu CUDA=13' >&2; exit 1;; esac
	test -e $@ || rm -rf $(GPU_VENV)
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/$(if $(filter 13,$*),gpu13,gpu).txt
	$(GPU_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.cpu: $(VENV)/bin/python requirements/cpu.txt pyproject.toml
	$(INSTALL) --require-hashes -r requirements/cpu.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.supply: $(VENV)/.cpu requirements/supply.txt
	$(INSTALL) --require-hashes -r requirements/supply.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu requirements/dev.txt
	$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.gputest: $(VENV)/.dev requirements/gputest.txt
	$(INSTALL) --require-hashes -r requirements/gputest.txt
	@touch $@
