# Each target makes its own virtual environment first; any Python from 3.11 does: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: sweep test test-all test-commands lint help

sweep: $(VENV)/installed  ## trains the embedded sweep and writes its report: about a minute on two cores
	$(RUN) -m launch.sweep --config=experiments/digits_noise.py --workdir=sweeps/digits_noise

PYTEST = $(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: $(VENV)/installed  ## the specification, each behavior in its smallest form: 4 to 10 minutes on two cores
	$(PYTEST)

test-all: test  ## also real Slurm and Ray, kill -9, the wheel, 100,000 records, all experiments: half an hour or more
	$(PYTEST) -m slow

test-commands: $(VENV)/installed  ## the slow tests of clusters, killed workers and commands
	$(PYTEST) -m slow tests/launch tests/test_readme.py -k "not many_more_workers"

lint: $(VENV)/installed  ## format and style
	$(RUN) -m ruff format --check . && $(RUN) -m ruff check .

help:  ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*##  */\1: /p' Makefile

$(VENV)/installed: requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "noisegen needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.txt: about a minute"
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
