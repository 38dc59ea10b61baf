# Midwatch: `make help` lists what there is. Every target sets itself up; nothing needs root, Docker or a Redis server.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo dev test check house format fast slow docs wheel clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Midwatch needs Python 3.11 or newer, this is " + sys.version.split()[0]'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Run the whole system on this machine with faults switched on, and print the result
	@$(BIN)/midwatch demo $(ARGS)

dev: $(STAMP) ## Run the whole system on this machine with your MIDWATCH_AGENTS, until Ctrl-C
	@$(BIN)/midwatch dev $(ARGS)

test: $(STAMP) check ## Everything that CI runs: lint, types, layers, all tests but the slow ones
	@$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

check: $(STAMP) ## Lint, formatting, types, layers, import cycles
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python tests/unit/house.py --check

house: $(STAMP) ## Print the number of entries and of imports in each package, and the import cycles
	@$(BIN)/python tests/unit/house.py $(ARGS)

format: $(STAMP) ## Format and sort imports
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

fast: $(STAMP) ## The quick tests, without processes: a minute
	@$(BIN)/pytest -q -n 2 -m "not process and not slow" tests/unit tests/fundamentals tests/properties $(ARGS)

slow: $(STAMP) ## The long tests that `make test` leaves out, one at a time on a quiet machine (an hour)
	@$(BIN)/pytest -q -m "slow" $(ARGS)

docs: $(STAMP) ## Write the generated files: wire schemas, keyspace, command line
	@$(BIN)/python -m midwatch.workers.generate

wheel: $(STAMP) ## Build the wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what was built or cached here
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
