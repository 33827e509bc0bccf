.DEFAULT_GOAL := help
# An active virtual environment is used; without one, .venv is made here.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.fulcra-ready
PARITY := $(VENV)/.fulcra-parity
TUNIX := $(VENV)/.fulcra-align
ALIGN ?= runs/align

help:  ## What each target does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-22s %s\n", $$1, $$2}' Makefile

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

study: $(READY)  ## The toy alignment study with all that it needs; ALIGN=FOLDER, default runs/align.
	$(if $(wildcard $(ALIGN)/decoder/decoder.json),,$(PY) -m experiments.pretrain_decoder --out $(ALIGN)/decoder)
	$(if $(wildcard $(ALIGN)/evaluator/model),,$(PY) -m experiments.train align-evaluator --run $(ALIGN)/evaluator)
	$(if $(wildcard $(ALIGN)/second/model),,$(PY) -m experiments.train align-second --run $(ALIGN)/second)
	$(PY) -m experiments.align toy --out $(ALIGN)/study --decoder $(ALIGN)/decoder --evaluator $(ALIGN)/evaluator --second $(ALIGN)/second

fix: $(READY)  ## Format and apply safe lint fixes.
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: $(READY)  ## Format, lint, types. Changes nothing.
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m basedpyright

test: $(READY)  ## All tests on CPU: no network, no torch, no tunix.
	$(PY) -m pytest -m "not parity and not tunix"

test-fast: $(READY)  ## The tests without those that train.
	$(PY) -m pytest -m "not parity and not tunix and not slow"

parity: $(PARITY)  ## Live comparison with transformers (installs torch).
	$(PY) -m pytest -m parity

$(PARITY): $(READY) requirements-parity.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-parity.txt
	@touch $(PARITY)

align: $(TUNIX)  ## The adapter to google-tunix (installs it).
	$(PY) -m pytest -m tunix

$(TUNIX): $(READY) requirements.txt requirements-align.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-align.txt
	@touch $(TUNIX)

goldens: $(PARITY)  ## Write tests/goldens anew from the reference implementation.
	$(PY) -m tests.goldens.make_deberta
	$(PY) -m tests.goldens.make_torch_files

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

references-objectives: $(REFS)/.objectives  ## The libraries that the objectives are compared with (5 GB).

$(REFS)/.objectives: Makefile
	@for name in trl011 trl116 verl rlax; do test -x $(REFS)/$$name/bin/python || $(PYTHON) -m venv $(REFS)/$$name; done
	@$(REFS)/trl011/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 trl==0.11.4 transformers==4.45.2 "numpy<2" pyarrow==18.1.0 "pandas<3" "datasets<4" "accelerate<1.2" rich
	@$(REFS)/trl116/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 trl==1.16.0
	@$(REFS)/verl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1
	@$(REFS)/verl/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pandas==3.1.1 transformers==5.12.1 tensordict==0.10.0 omegaconf==2.3.1 hydra-core==1.3.8 codetiming==1.4.0 ray==2.60.0 orjson==3.13.0
	@$(REFS)/rlax/bin/python -m pip install --quiet --disable-pip-version-check rlax==0.1.9 jax==0.10.2
	@touch $@

goldens-objectives: $(REFS)/.objectives  ## Write the goldens of the objectives anew from those libraries.
	$(REFS)/trl011/bin/python tests/goldens/make_policy.py trl_ppo
	$(REFS)/trl116/bin/python tests/goldens/make_policy.py trl
	$(REFS)/verl/bin/python tests/goldens/make_policy.py verl
	$(REFS)/rlax/bin/python tests/goldens/make_policy.py rlax
	$(REFS)/trl011/bin/python tests/goldens/make_preference.py trl_ppo
	$(REFS)/trl116/bin/python tests/goldens/make_preference.py trl
	$(REFS)/trl011/bin/python tests/goldens/make_reward.py

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

.PHONY: help setup demo study fix check test test-fast parity align goldens references goldens-scoring references-objectives goldens-objectives lock
