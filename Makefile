# Everything that a checkout needs. `make` alone, or `make help`, says what there is.

VENV ?= .venv
BIN := $(VENV)/bin
# Written when the install succeeded: repeated calls do nothing until the lock or the project changes.
INSTALLED := $(VENV)/.installed
# What the files in the repository must not know: which index packages come from. uv and pip take
# it from the user's own configuration.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Test processes side by side: most tests wait for processes of their own.
JOBS ?= 4
# Of `make test-rest`, whose tests wait more: for servers that start, and for faults to be noticed.
REST_JOBS ?= 6
# The marks of tests that `make test` leaves out. `make test-rest` also repeats the tests that Hypothesis marks, with
# more examples.
REST := faults or browser or variant or slow
# More arguments for pytest: make test ARGS="-k cli -x"
ARGS ?=
# Tests start a thousand processes: each would compile what it imports if none may keep it for the next.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install venv demo example test test-rest test-all soak bench profile docs docs-serve reference check format lock wheel clean

help: ## Show this help
	@if [ -t 1 ]; then bold=$$(printf '\033[1m'); cyan=$$(printf '\033[36m'); off=$$(printf '\033[0m'); fi; \
	printf '%sdoteval%s: distributed evaluation of language models and other expensive models\n\n' "$$bold" "$$off"; \
	awk -v cyan="$$cyan" -v off="$$off" 'BEGIN { FS = ":.*## " } \
	    /^[a-z-]+:.*## / { printf "  %smake %-10s%s %s\n", cyan, $$1, off, $$2 }' Makefile; \
	printf '\nStart with %smake demo%s. It needs Python 3.11 or newer and nothing else.\n' "$$bold" "$$off"

install: $(INSTALLED) ## Install into .venv, exactly what the lock says
venv: install

$(INSTALLED): requirements-dev.lock requirements-build.lock requirements-plugins.lock pyproject.toml | $(BIN)/uv
	@echo "Installing the locked packages into $(VENV) ..."
	@$(BIN)/uv pip install $(BUILD) --python $(BIN)/python --quiet && \
	    $(BIN)/uv pip install $(LOCKED) --python $(BIN)/python --quiet || { \
	    echo "pip, which may know of another index, tries it: that takes minutes ..."; \
	    $(PIP) install $(BUILD) && $(PIP) install $(LOCKED); }
	@$(BIN)/uv pip install $(PLUGINS) --python $(BIN)/python --quiet || $(PIP) install $(PLUGINS) --upgrade
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# What builds packages comes first, so that packages without a wheel are built by locked versions: in an environment of
# its own, pip and uv would build them by whatever is the newest.
BUILD := --require-hashes -r requirements-build.lock
LOCKED := --require-hashes --no-build-isolation -r requirements-dev.lock

# Beside the other packages, where only the tests that name the folder load them.
PLUGINS := --require-hashes --no-build-isolation --no-deps --target $(VENV)/plugins -r requirements-plugins.lock

# Of the version that the lock names.
$(BIN)/uv: | $(BIN)/python
	@sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.lock > $(VENV)/uv.lock
	@$(PIP) install --require-hashes -r $(VENV)/uv.lock

$(BIN)/python:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(sh .ci/python) || exit 1; \
	echo "Making $(VENV) with $$("$$python" --version) ..."; "$$python" -m venv "$(VENV)"

demo: $(INSTALLED) ## Evaluate two real datasets on two worker processes, with a private Redis
	@echo doteval submit examples/demo --experiment demo $(ARGS)
	@$(BIN)/python -m doteval.mock_openai --latency 0.1 \
	    $(BIN)/doteval submit examples/demo --experiment demo $(ARGS)

example: $(INSTALLED) ## Run an example as its README says (NAME=scopes), or list the examples
	@$(BIN)/python examples/run.py $(NAME)

# With ARGS, `make test-all` may find its tests in one half only; pytest ends with 5 if there are none.
HALF_MAY_BE_EMPTY = $(if $(and $(HALF),$(ARGS)),|| [ $$? = 5 ])

test: $(INSTALLED) ## Test every behaviour once, with Redis and SQLite (ARGS="-k words" for some tests)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m "not ($(REST))" \
	    --hypothesis-profile few-examples --ignore tests/faults --ignore tests/browser $(ARGS) $(HALF_MAY_BE_EMPTY)

test-rest: $(INSTALLED) ## Test the rest: faults, RabbitMQ, PostgreSQL, a browser, second forms, soak
	@$(BIN)/python -m pytest --numprocesses $(REST_JOBS) --dist worksteal -m "$(REST) or hypothesis" \
	    $(ARGS) $(HALF_MAY_BE_EMPTY)

test-all: $(INSTALLED) ## Run both, all tests there are
	@failed=0; for half in test test-rest; do $(MAKE) --no-print-directory $$half HALF=1 || failed=1; done; exit $$failed

MINUTES ?= 10
soak: $(INSTALLED) ## Break things at random for MINUTES=10 while a large evaluation goes on (SEED=n repeats one)
	@$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED) ## Measure speed beside other runners (ARGS="local_rows --repeat 1" for a part)
	@$(BIN)/python -m benchmarks $(ARGS)

profile: $(INSTALLED) ## Show where a submitter and its worker processes spend their time
	@$(BIN)/python -m benchmarks.profile $(ARGS)

reference: $(INSTALLED) ## Write docs/reference anew from the code
	@$(BIN)/python -m docs.generate

# Sphinx's warnings are errors: links and anchors that lead nowhere, pages that docs/index.md does not list.
# From nothing each time: pages that stay the same would keep an old navigation.
SITE := build/docs
PORT ?= 8000
docs: reference ## Make the site of the documentation in build/docs
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --conf-dir docs \
	    --doctree-dir build/doctrees --fresh-env . $(SITE)
	@echo "Made $(SITE)/index.html"

docs-serve: docs ## Serve that site on this machine (PORT=8000)
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

check: $(INSTALLED) ## Lint, formatting, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

# What plugins need and requirements-dev.lock holds, and Playwright with its own, which no test uses.
SHARED := attrs colorama iniconfig jinja2 markupsafe packaging pluggy pygments pytest \
          greenlet playwright pyee typing-extensions
lock: | $(BIN)/uv ## Write the locks anew from pyproject.toml (UPGRADE=1 for the newest versions)
	@$(LOCK) pyproject.toml --output-file requirements.lock
	@$(LOCK) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	@$(LOCK) --group build --constraint requirements-dev.lock --output-file requirements-build.lock
	@$(LOCK) --group plugins --constraint requirements-dev.lock $(SHARED:%=--no-emit-package %) \
	    --output-file requirements-plugins.lock

wheel: $(INSTALLED) ## Build the wheel into dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

clean: ## Remove .venv, caches and built files (results in .doteval stay)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
