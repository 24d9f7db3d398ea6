# Everything a stranger needs. Each target makes .venv if it is missing, builds, installs, and goes on.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CORE   := $(shell find native models -type f) CMakeLists.txt pyproject.toml

.PHONY: demo test soak lint bench clean format
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/edgelearn demo -o build/demo

# A file is one worker's, so that models and environments of a file are made once; tests/conftest.py puts long ones first.
test: $(VENV)/.tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

# Long sweeps with many seeds and every cut; `make test` samples them.
soak: $(VENV)/.tests
	$(BIN)/python -m pytest -q -m soak --timeout 0

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(shell find native tests/native -name '*.[ch]')
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/cmake --preset dev -G Ninja > build/lint.log
	$(BIN)/clang-tidy --quiet -p build/dev $(shell find native/src tests/native -name '*.c' ! -name neon.c)

bench: $(VENV)/.installed
	$(BIN)/python -m bench.step
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.gradients
	$(BIN)/python -m bench.export
	$(BIN)/python -m bench.flash
	$(BIN)/python -m bench.latency
	$(BIN)/python -m bench.mixes
	$(BIN)/python -m bench.embeddings
	$(BIN)/python -m bench.adapt
	$(BIN)/python -m bench.nested
	$(BIN)/python -m bench.accuracy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find native tests/native -name '*.[ch]')

clean:
	rm -rf build $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

# The extension is rebuilt when a source of the core changes; Python files are used in place.
$(VENV)/.installed: $(BIN)/python $(CORE)
	$(BIN)/python -m pip install -q -e '.[all,numba]'
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install -q --group test
	touch $@

$(VENV)/.lint: $(VENV)/.tests
	$(BIN)/python -m pip install -q --group lint
	mkdir -p build
	touch $@
