# `make run` and `make test` are all that a new machine needs: Python 3.11+, pip and make.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: run pages test test-slow test-all site faults mutants lint types check clean

run: $(VENV)/.installed
	$(BIN)/uebench run

# The pages of the committed results: they follow from the data next to them, so only the data are
# committed.
RESULTS ?= $(patsubst %/cells.csv,%,$(wildcard results/*/cells.csv))
pages: $(VENV)/.installed
	for folder in $(RESULTS); do $(BIN)/uebench report "$$folder" || exit 1; done

# The website, which also opens from the disk: the leaderboards, and the documentation in site/docs,
# which comes first, since the other pages link to it where it is there.
SITE ?= site
site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir $(abspath $(SITE)/docs)
	$(BIN)/uebench site results --out $(SITE)

# The tests start many interpreters, each of which would compile the suite again where the environment
# forbids keeping compiled files.
test test-slow test-all: export PYTHONDONTWRITEBYTECODE =

# Before each commit: every behaviour has a test here that takes seconds.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Claims that take a training, clusters that are killed, runs that are stopped and resumed.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

MINUTES ?= 20
faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults --minutes $(MINUTES)

MUTANTS ?= 3
mutants: $(VENV)/.installed
	$(BIN)/python -m tests.mutants --each $(MUTANTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	@if command -v actionlint >/dev/null; then actionlint; \
	else echo "actionlint is not installed: only zizmor has checked the workflows"; fi

types: $(VENV)/.installed
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks

check: lint types test

$(VENV)/.installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit("uebench needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
ifeq ($(UV),)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
else
	test -x $(BIN)/python || uv venv --quiet --seed --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(BIN)/python -e '.[dev]'
endif
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
