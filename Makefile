# Each target makes its own virtual environment first; any Python from 3.11 does: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: sweep test test-all lint

sweep: $(VENV)/installed  ## the embedded sweep: about a minute on two cores
	$(RUN) -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits

PYTEST = $(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: $(VENV)/installed  ## the specification: minutes
	$(PYTEST)

test-all: test  ## real Slurm and Ray, chaos, wheels, 100,000 records as well
	$(PYTEST) -m slow

lint: $(VENV)/installed
	$(RUN) -m ruff format --check . && $(RUN) -m ruff check .

$(VENV)/installed: requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "noisegen needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.txt: about a minute"
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
