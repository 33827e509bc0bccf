.DEFAULT_GOAL := help
# An active virtual environment is used; without one, .venv is made here.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.fulcra-ready
PARITY := $(VENV)/.fulcra-parity

help:  ## What each target does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## Make .venv (or use the active one) and install requirements.txt.

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed; this is %d.%d. Try make PYTHON=python3.11 ..." % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.txt into $(VENV) (once; about 1.5 GB)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

demo: $(READY)  ## Train, evaluate and score five responses; DATA=FOLDER for real rows, QUICK=1.
	$(PY) -m experiments.demo $(if $(DATA),--data $(DATA)) $(if $(QUICK),--quick) $(if $(RUN),--run $(RUN))

fix: $(READY)  ## Format and apply safe lint fixes.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: $(READY)  ## Format, lint, types. Changes nothing.
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m basedpyright

test: $(READY)  ## All tests on CPU: no network, no torch.
	$(PY) -m pytest -m "not parity"

test-fast: $(READY)  ## The tests without those that train.
	$(PY) -m pytest -m "not parity and not slow"

parity: $(PARITY)  ## Live comparison with transformers (installs torch).
	$(PY) -m pytest -m parity

$(PARITY): $(READY) requirements-parity.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-parity.txt
	@touch $(PARITY)

goldens: $(PARITY)  ## Write tests/goldens anew from the reference implementation.
	$(PY) -m tests.goldens.make_deberta

REFS := .venv-references

references: $(REFS)/.ready  ## The libraries that scoring is compared with, in environments of their own.

$(REFS)/.ready: Makefile
	@for name in libraries irrcac crowdkit ppi; do test -x $(REFS)/$$name/bin/python || $(PYTHON) -m venv $(REFS)/$$name; done
	@$(REFS)/libraries/bin/python -m pip install --quiet --disable-pip-version-check krippendorff==0.9.0 statsmodels==0.15.0 scikit-learn==1.9.1 nltk==3.10.4 pingouin==0.6.1
	@$(REFS)/irrcac/bin/python -m pip install --quiet --disable-pip-version-check irrCAC==0.4.4
	@$(REFS)/crowdkit/bin/python -m pip install --quiet --disable-pip-version-check --no-deps crowd-kit==1.4.2
	@$(REFS)/crowdkit/bin/python -m pip install --quiet --disable-pip-version-check scikit-learn==1.6.1 "pandas<3" "numpy<2.4" attrs tqdm nltk
	@$(REFS)/ppi/bin/python -m pip install --quiet --disable-pip-version-check ppi-python==0.2.3
	@touch $@

goldens-scoring: $(REFS)/.ready  ## Write the scoring goldens anew from those libraries.
	$(REFS)/irrcac/bin/python tests/goldens/make_agreement.py irrcac
	$(REFS)/libraries/bin/python tests/goldens/make_agreement.py libraries
	$(REFS)/crowdkit/bin/python tests/goldens/make_aggregation.py
	$(REFS)/ppi/bin/python tests/goldens/make_estimation.py

lock:  ## Write requirements.txt anew from requirements.in.
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.in
	{ echo "# Exact versions of all that requirements.in needs; written by make lock."; .venv-lock/bin/python -m pip freeze; } > .requirements.new
	mv .requirements.new requirements.txt
	rm -rf .venv-lock

.PHONY: help setup demo fix check test test-fast parity goldens references goldens-scoring lock
