# Everything below needs Python >= 3.11 and make; each target creates what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help demo test lint types slow witness clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/'

demo: $(VENV)/.installed ## the main job: degradation and its cure on real digits
	$(BIN)/minires demo

test: lint types ## lint, types and the tests that need nothing but this repository
	$(BIN)/pytest -n 2 --dist worksteal -m "not witness and not gpu and not slow"

slow: $(VENV)/.developing ## the tests that take long: a whole demo, suites scored in processes of their own
	$(BIN)/pytest -m "slow and not witness and not gpu"

lint: $(VENV)/.developing ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developing ## mypy, strict, on both packages
	$(BIN)/mypy

witness: $(VENV)/.developing ## the tests that compare with PyTorch; skipped, with the reason, where it can't be had
	@if $(BIN)/python -c "import torch, expecttest" 2>/dev/null \
		|| $(BIN)/pip install -q torch==2.13.0 expecttest==0.3.0; then \
		$(BIN)/pytest -m witness; \
	else \
		echo "witness: skipped: torch==2.13.0 and expecttest==0.3.0 can't be installed here"; \
	fi

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.developing: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e ".[dev]"
	touch $(VENV)/.installed $@

clean: ## remove the virtual environment and everything generated
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
