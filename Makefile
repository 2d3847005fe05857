# Each target works from a bare machine with Python 3.11+, pip and make: it builds .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# torchvision's own library cannot be loaded beside a CPU build of torch, so it stays out of the environment;
# only the parity tests borrow it from here. lmms-eval has older libraries, so it has a folder of its own.
REFEREES := $(VENV)/referees

.PHONY: demo test test-slow check format bench docs clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(REFEREES)/.ready: $(READY) tests/evaluate/lmms-eval.txt
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(REFEREES) torchvision==0.28.0
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(REFEREES)/lmms-eval \
		--requirement tests/evaluate/lmms-eval.txt
	touch $@

demo: $(READY)
	$(BIN)/python runs/demo.py

test: $(READY)
	$(BIN)/pytest --numprocesses 2

test-slow: $(READY) $(REFEREES)/.ready
	LNV_REFEREES=$(REFEREES) $(BIN)/pytest --numprocesses 2 --dist loadgroup -m "slow and not gpu"

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(READY) $(REFEREES)/.ready
	$(BIN)/python benchmarks/decode.py
	LNV_REFEREES=$(REFEREES) $(BIN)/python benchmarks/pixels.py
	$(BIN)/python benchmarks/engine.py one sixteen
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/caption.py

docs: $(READY)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV)
