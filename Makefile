# GNU make. `make help` lists the targets.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
UV := .venv/.uv/bin/uv
# Trust what this machine trusts, and take packages from where its pip takes them.
export UV_SYSTEM_CERTS := true
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONHOME PYTHONPATH
# Without its compiled modules Airflow takes seconds more for each start.
unexport PYTHONDONTWRITEBYTECODE

# The first of these that runs and has a supported version; PYTHON=/path/to/python chooses one.
PYTHON ?= python3.12 python3.11 python3

INSTALLED := .venv/.installed
COMPILE := pip compile --quiet --universal --no-strip-extras --no-annotate --generate-hashes \
	--custom-compile-command "make lock"
LOCK := $(COMPILE) pyproject.toml

# An environment whose Python was removed is made again.
$(shell [ ! -e .venv/.python ] || .venv/bin/python -c '' 2>/dev/null || rm -f .venv/.python .venv/.installed)

yes = $(filter 1 true yes on,$(1))

.PHONY: help run doctor install bench test test-quick test-compose test-move check fix lock lock-check clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## Everything on this machine, in the sandbox. LIVE=1: real services; ONCE=1: end after the first hour
	@exec .venv/bin/coinwatch run $(if $(call yes,$(LIVE)),--live) $(if $(call yes,$(ONCE)),--once)

doctor: $(INSTALLED) ## Check settings, key, services, warehouse, disk and clock. POST=1: also post a test message to Slack
	@exec .venv/bin/coinwatch doctor $(if $(call yes,$(POST)),--post)

install: $(INSTALLED) ## The locked dependencies, into .venv

# A file stays on one worker, because its fixtures are shared by its tests.
test: $(INSTALLED) ## The whole test suite
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-quick: $(INSTALLED) ## The part that takes less than a minute: contract, pure functions and edges, on SQLite
	.venv/bin/python -m pytest --numprocesses auto --dist worksteal -k "not postgresql" $(ARGS) tests/unit tests/edges tests/contract

test-compose: $(INSTALLED) ## Start, break and restart the stack of docker-compose.yaml (needs Docker)
	.venv/bin/python tests/compose/run.py

bench: $(INSTALLED) ## Measure time and memory, beside DuckDB, polars and empty Dags; writes bench.json (ARGS="hour statistics": these only)
	@$(call uv,pip install --quiet --no-deps -r requirements-bench.txt)
	.venv/bin/python bench $(ARGS)

test-move: $(INSTALLED) ## Backup, restore and upgrade Airflow, as docs/operations.md says (needs Docker)
	.venv/bin/python tests/compose/move.py $(ARGS)

check: $(INSTALLED) ## Format, lint, types, imports and lock; changes nothing
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo --no-cache >.venv/imports.log 2>&1 || { cat .venv/imports.log; exit 1; }
	@$(MAKE) --no-print-directory lock-check

fix: $(INSTALLED) ## Repair format and lint, where that is possible
	.venv/bin/ruff check --fix --exit-zero --quiet
	.venv/bin/ruff format
	.venv/bin/ruff check

lock: $(UV) ## Pin what pyproject.toml asks for, keeping the pins that fit (UPGRADE=1: to the newest)
	$(call uv,$(LOCK) $(if $(call yes,$(UPGRADE)),--upgrade) --output-file requirements.txt)
	$(call uv,$(LOCK) $(if $(call yes,$(UPGRADE)),--upgrade) --extra sandbox --constraints requirements.txt --output-file requirements-sandbox.txt)
	$(call uv,$(LOCK) $(if $(call yes,$(UPGRADE)),--upgrade) --extra sandbox --group dev --constraints requirements-sandbox.txt --output-file requirements-dev.txt)
	$(call uv,$(COMPILE) --group bench $(if $(call yes,$(UPGRADE)),--upgrade) --constraints requirements-dev.txt --output-file requirements-bench.txt)

# The same as `lock`, on copies.
lock-check: $(UV)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp requirements*.txt "$$folder" && \
	$(call uv,$(LOCK) --output-file "$$folder/requirements.txt") && \
	$(call uv,$(LOCK) --extra sandbox --constraints "$$folder/requirements.txt" --output-file "$$folder/requirements-sandbox.txt") && \
	$(call uv,$(LOCK) --extra sandbox --group dev --constraints "$$folder/requirements-sandbox.txt" --output-file "$$folder/requirements-dev.txt") && \
	$(call uv,$(COMPILE) --group bench --constraints "$$folder/requirements-dev.txt" --output-file "$$folder/requirements-bench.txt") && \
	for file in requirements*.txt; do \
		cmp -s "$$file" "$$folder/$$file" || { echo "$$file is not what pyproject.toml asks for: run \`make lock\`" >&2; exit 1; }; \
	done && echo "requirements are in step with pyproject.toml"

clean: ## Remove .venv, caches and what the sandbox made; real data and the Airflow of live runs stay
	rm -rf .venv .airflow/sandbox data/sandbox .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv with the index that pip is configured for, if it is.
uv = index=$${PIP_INDEX_URL:-$$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; fi; $(UV) $(1)

# A step that was interrupted is done again by the next install.
$(INSTALLED): requirements-dev.txt pyproject.toml | $(UV)
	@echo "installing the locked dependencies into .venv"
	@$(call uv,pip sync --quiet --require-hashes requirements-dev.txt)
	@$(call uv,pip install --quiet --no-deps --editable .)
	@touch $@

# uv is kept outside the environment, from which it removes everything that is not locked.
$(UV): .venv/.python
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --target .venv/.uv uv==$(UV_VERSION)
	@touch $@

.venv/.python:
	@if $(call fits,.venv/bin/python) && .venv/bin/python -m pip --version >/dev/null 2>&1; then touch $@; exit; fi; \
	for python in $(PYTHON); do \
		if $(call fits,"$$python"); then \
			"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
				echo "$$python cannot make virtual environments: install the package python3-venv" >&2; exit 1; }; \
			echo "using $$("$$python" -V) ($$(command -v "$$python"))"; \
			"$$python" -m venv --clear .venv && touch $@; exit; \
		fi; \
	done; \
	echo "Python 3.11 or 3.12 is needed; none of these is one: $(PYTHON). Choose one with make PYTHON=/path/to/python" >&2; \
	exit 1

fits = $(1) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
