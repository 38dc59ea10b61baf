# Midwatch: `make help` lists what there is. Every target sets itself up; nothing needs root, Docker or a Redis server.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo dev test check house format fast slow lowest docs wheel clean

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

LOWEST := .venv-lowest
LOWEST_TESTS := tests/fundamentals tests/contract/test_wire.py tests/contract/test_stores.py \
  tests/functional/test_boot_check.py tests/functional/test_celery_neighbours.py tests/unit/test_server_address.py \
  tests/unit/test_served_lists.py tests/unit/test_redis_connection.py tests/unit/test_cli_worker_plan.py

lowest: ## The lowest versions that pyproject.toml allows, in an environment of their own (three minutes; CI does not run it)
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python tests/lowest.py > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[embedded]' \
	  pytest pytest-timeout hypothesis psutil llmock==0.2.2 PyYAML
	@$(LOWEST)/bin/pytest -q $(LOWEST_TESTS) $(ARGS)

docs: $(STAMP) ## Write the generated files: wire schemas, keyspace, command line
	@$(BIN)/python -m midwatch.workers.generate

wheel: $(STAMP) ## Build the wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what was built or cached here
	@rm -rf $(VENV) $(LOWEST) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
