# What CI runs, and what a newcomer types. `make PYTHON=python3.12 setup` picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
INTEROP ?= .venv-interop
MUTANTS ?= .venv-mutants
BIN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup quickstart test plan-test stage-test docs site lint mutants robustness interop bench

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hen_jax needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	touch $@

# The whole pipeline in a small setting: model, five stages, evaluation, exports, a report to read.
quickstart: setup
	$(BIN)/hen run --config=pipeline --workdir=runs/quickstart

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The large models compiled for CUDA and for a TPU slice, without either: minutes each.
plan-test: setup
	$(BIN)/python -m pytest -m slow tests/test_lowering.py tests/test_launch_commands.py

# What need not run each time: policies that learn, a critic of its own, several turns, stages on
# eight devices and cut off in the middle. Minutes.
stage-test: setup
	$(BIN)/python -m pytest -n 2 -m slow --ignore tests/test_lowering.py --ignore tests/test_launch_commands.py

# The pages that are written from the code.
docs: setup
	$(BIN)/python -m hen_jax.verbs.run.settings_page > docs/settings.md

# The documentation as a site, in build/site. It needs no network, built or read.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Which changes of the package would no test see? In a copy: the working tree stays as it is.
# One file: `make mutants FILE=hen_jax/training/optimizers.py`, every mutant of it: `SAMPLE=0`.
mutants: $(MUTANTS)/ready
	$(MUTANTS)/bin/python tests/mutation/run.py $(FILE) $(if $(SAMPLE),--sample=$(SAMPLE))

$(MUTANTS)/ready: $(VENV)/ready
	$(BIN)/python -m venv $(MUTANTS)
	$(MUTANTS)/bin/python -m pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	$(BIN)/python -c 'import site; print(*site.getsitepackages())' > "$$($(MUTANTS)/bin/python -c 'import site; print(*site.getsitepackages())')/project.pth"
	touch $@

# Commands killed over and over, files damaged one by one: is anything lost or silently wrong?
robustness: setup
	$(BIN)/python tests/robustness/run.py --page docs/robustness.md

# Equality with transformers and PEFT, in an environment of its own: torch is never ours.
interop: $(INTEROP)/ready
	$(INTEROP)/bin/python -m pytest -n 2 --dist loadfile tests/interop

$(INTEROP)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python $(INSTALL) torch==2.13.0
	$(INTEROP)/bin/python $(INSTALL) --editable '.[dev]' accelerate peft trl xllamacpp 'lm-eval[api]'
	touch $@

# Ratios against the peers, on this machine, into benchmarks/RESULTS.md and the README: hours, of
# which what is done is kept. `make bench BENCH='--only sft decode'` for some.
bench: setup $(INTEROP)/ready
	$(BIN)/hen import smollm2-135m models/smollm2-135m
	$(BIN)/python benchmarks/bench.py --model models/smollm2-135m --peer-python $(INTEROP)/bin/python $(BENCH)
