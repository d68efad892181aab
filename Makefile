# One verb per task. `make demo` and `make test` are all a newcomer needs: each sets up .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2

.PHONY: demo test test-all check fix bench clean setup
setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,tensorboard]"
	touch $(READY)

demo: $(READY)  ## cells, three ways of training, a table and a report: about five minutes on two cores
	$(BIN)/semiseg demo

test: $(READY)  ## the fast suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: $(READY)  ## everything, with the kill tests and the wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

check: $(READY)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_house.py

fix: $(READY)  ## what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## the training step beside the bare network step
	$(BIN)/python benchmarks/step.py --write

clean:
	rm -rf .venv build dist runs .mypy_cache .ruff_cache .pytest_cache
