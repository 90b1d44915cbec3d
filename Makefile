# Two commands do all the set-up: `make serve` and `make test`.

PYTHON ?= python3
# `make serve` must not drag torch in, so serving has an environment of its own.
SERVING := .venv-serve
DEVELOPING := .venv
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve develop test lint format train evaluate benchmark serving soak clean

help:  ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

serve: $(SERVING)/installed  ## Start the server with the bundled model on http://127.0.0.1:8000.
	exec $(SERVING)/bin/anytime

develop: $(DEVELOPING)/installed  ## Install everything needed to change the project.

test: $(DEVELOPING)/installed  ## Run the tests.
	$(DEVELOPING)/bin/pytest $(TESTS)

lint: $(DEVELOPING)/installed  ## Check format, style, import contracts and types.
	$(DEVELOPING)/bin/ruff format --check
	$(DEVELOPING)/bin/ruff check
	$(DEVELOPING)/bin/lint-imports
	$(DEVELOPING)/bin/mypy

format: $(DEVELOPING)/installed  ## Format the code and mend what can be mended.
	$(DEVELOPING)/bin/ruff format
	$(DEVELOPING)/bin/ruff check --fix

RECIPE ?= cifar10_7exits_cpu
RUN ?= runs/$(RECIPE)
DATA ?= data
train: $(DEVELOPING)/installed  ## Train RECIPE into RUN on DATA, or go on where it was stopped.
	$(DEVELOPING)/bin/python -m training train $(RECIPE) --data $(DATA) --output $(RUN)

evaluate: $(DEVELOPING)/installed  ## Print the tables of a trained RUN on DATA.
	$(DEVELOPING)/bin/python -m training evaluate --run $(RUN) --data $(DATA)

benchmark: $(DEVELOPING)/installed  ## Run all benchmarks; DATA adds the accuracy of CIFAR-10 over HTTP.
	$(DEVELOPING)/bin/python -m benchmarks $(if $(wildcard $(DATA)/cifar-10-batches-py),--data $(DATA))

serving: $(DEVELOPING)/installed  ## Run the benchmark of serving under load, 50 minutes; needs CIFAR-10 in DATA.
	$(DEVELOPING)/bin/python -m benchmarks.serving --data $(DATA)

MINUTES ?= 10
soak: $(DEVELOPING)/installed  ## Put mixed load on a server for MINUTES and see that nothing is left.
	$(DEVELOPING)/bin/python -m benchmarks.soak --minutes $(MINUTES)

clean:  ## Remove environments and caches.
	rm -rf $(SERVING) $(DEVELOPING) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(SERVING)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/pip install $(PIP_FLAGS) -e '.[service,cpu]'
	touch $@

# torch first and alone: asked for by another package's range, pip would take a build with CUDA.
$(DEVELOPING)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEVELOPING)
	$(DEVELOPING)/bin/pip install $(PIP_FLAGS) $(shell grep '^torch==' constraints.txt)
	$(DEVELOPING)/bin/pip install $(PIP_FLAGS) $(shell $(PYTHON) -c "import tomllib; groups = tomllib.load(open('pyproject.toml','rb'))['dependency-groups']; print(*groups['dev'], *groups['benchmarks'])")
	$(DEVELOPING)/bin/pip install $(PIP_FLAGS) -e '.[service,cpu,training]'
	touch $@
