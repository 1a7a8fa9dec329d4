# Every target makes and fills .venv by itself (mk/setup_env.sh); a second call installs nothing.
# Another Python: make demo PYTHON=python3.11
PYTHON ?= python3

SETUP := setup.py pyproject.toml constraints.txt mk/setup_env.sh

.DEFAULT_GOAL := help
.PHONY: help demo cim test test-fast bench evaluate lint docs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo-ready ## pretrain on the built-in shapes and show the result
	.venv/bin/python tools/demo.py

cim: .venv/.demo-ready ## the same for corrupted image modelling: tokenizer, generator, enhancers
	.venv/bin/python tools/demo.py --method cim

# One worker per core, one thread per worker (tests/conftest.py); the tests of a file share a worker, and its fixtures.
PYTEST := .venv/bin/python -m pytest tests -n auto --maxprocesses 8 --dist loadfile

test-fast: .venv/.test-ready ## run the fast tests: no processes, no shipped trainings, no code generation
	$(PYTEST) -m 'not slow'

test: .venv/.test-ready ## run all tests; ends with what was skipped and why, and the slowest ones
	$(PYTEST) -rs --durations=20

bench: .venv/.demo-ready ## time, memory and FLOPs of a training step beside MAE, SimMIM and BEiT (half an hour on 2 cores)
	.venv/bin/python -m benchmarks.step_time

evaluate: .venv/.test-ready ## pretrain and evaluate downstream on the embedded data (45 minutes on 2 cores)
	.venv/bin/python -m benchmarks.downstream

lint: .venv/.demo-ready ## check style and formatting
	@test -x .venv/bin/ruff || .venv/bin/python -m pip install --quiet ruff -c constraints.txt
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .

.venv/.demo-ready: $(SETUP)
	@PYTHON='$(PYTHON)' bash mk/setup_env.sh demo
	@touch $@

docs: .venv/.demo-ready ## build the documentation site in site/, without warnings
	@.venv/bin/python -c 'import mkdocstrings, material' 2>/dev/null || \
		.venv/bin/python -m pip install --quiet -e '.[docs]' -c constraints.txt
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build

# What the tests need includes what the demo needs.
.venv/.test-ready: $(SETUP)
	@PYTHON='$(PYTHON)' bash mk/setup_env.sh test
	@touch .venv/.demo-ready $@
