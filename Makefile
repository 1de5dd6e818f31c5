# The same steps on a laptop and in CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# How many files are tested at a time: `make test JOBS=2`. 0 is one after the other.
JOBS ?= 0

.PHONY: install lint check test demo up bench clean

install: $(STAMP)

# torch first and by exact version: an open range would fetch the newest build with CUDA.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "expected Python 3.11 or newer; got %d.%d. Set PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: install
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint check
	$(BIN)/pytest -n $(JOBS) --dist loadfile

demo: install
	$(BIN)/tacit demo

up: install
	$(BIN)/tacit up

bench: install
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.ingest_faults
	$(BIN)/python -m benchmarks.screening
	$(BIN)/python -m benchmarks.kafka_append
	$(BIN)/python -m benchmarks.two_speeds
	$(BIN)/python -m benchmarks.gate_power
	$(BIN)/python -m benchmarks.poison --quick
	$(BIN)/python -m benchmarks.refusal
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.update
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.doubts
	$(BIN)/python -m benchmarks.learning --quick

clean:
	rm -rf $(VENV) build dist *.egg-info
