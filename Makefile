# make demo    compare policies on the free memory of this machine (needs Python >= 3.11, pip and make)
# make test    install what the tests need and run all of them
# make check   style, types, import contracts, docstrings
# make bench   speed and size, what page states cost, and speed against this kernel, printed
# make bench-month  thirty days of churn on 1 TiB, a quarter of an hour
# make vmtest  the suites of `gmemlab conform` on another Debian kernel under software emulation: KERNEL=7.3
# make setup   what demo does before its run: .venv, dependencies, the compiled core
#
# Variables: PYTHON (the interpreter for .venv), VENV, SCENARIO, PYTEST_FLAGS, and the test selections below.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
SCENARIO ?= scenarios/demo.toml
PYTEST_FLAGS ?= -q -n auto --dist worksteal
export PYTHONDONTWRITEBYTECODE :=# else each of the many commands that the tests start compiles all modules again

# All tests with the compiled core; these again without the compiler, under coverage (1 GiB pages take minutes there); these
# again with bounds checks, less optimised, which compiles faster. What asks the oracle alone is the same each time.
TESTS ?= tests
ORACLE_TESTS := $(wildcard tests/test_oracle*.py)
FIRST_ORACLE_TESTS := $(wildcard tests/test_oracle_[a-c]*.py)
CORE_TESTS := $(addprefix tests/core/test_,against_oracle.py audit.py audit_hardware.py contig.py cpus_against_oracle.py measure.py run.py strict_units.py)
MODEL_TESTS := $(addprefix tests/model/test_,guests.py page_states.py pools.py) tests/core/test_state.py tests/core/test_conversion_errors.py
BOUNDS_TESTS ?= $(CORE_TESTS) $(ORACLE_TESTS)
COVERAGE_LEAST ?= 95
BENCH ?= bench/core_bench.py
STATES_BENCH ?= bench/page_states_bench.py
KERNEL_BENCH ?= bench/kernel_bench.py
KERNEL ?= 7.3
VMTEST_FLAGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
WARM := $(VENV)/.warm
CORE := $(wildcard src/gmemlab/core/*.py src/gmemlab/core/*/*.py)

.PHONY: demo setup test test-compiled test-interpreted test-bounds check bench bench-month vmtest clean
.DELETE_ON_ERROR:

demo: setup
	@$(BIN)/gmemlab compare $(SCENARIO)

setup: $(WARM)

test: test-compiled
	@$(MAKE) --no-print-directory --jobs 3 test-interpreted test-bounds

test-compiled: $(INSTALLED_DEV) $(WARM)
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(TESTS)

# In two parts that take about as long, so that both processors have work.
test-interpreted: interpreted-core interpreted-oracle
	$(BIN)/python -m coverage combine --quiet .coverage.core .coverage.oracle
	$(BIN)/python -m coverage report --fail-under=$(COVERAGE_LEAST)

interpreted-core: PART = $(CORE_TESTS) $(MODEL_TESTS) $(FIRST_ORACLE_TESTS)
interpreted-oracle: PART = $(filter-out $(FIRST_ORACLE_TESTS),$(ORACLE_TESTS))
interpreted-%: $(INSTALLED_DEV)
	NUMBA_DISABLE_JIT=1 COVERAGE_FILE=.coverage.$* $(BIN)/python -m coverage run -m pytest -q -k "not giga and not [oracle" $(PART)

test-bounds: $(INSTALLED_DEV)
	NUMBA_BOUNDSCHECK=1 NUMBA_OPT=1 $(BIN)/python -m pytest -q -k "not [oracle" $(BOUNDS_TESTS)

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src tests tools bench
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docstrings.py src

bench: $(INSTALLED_DEV) $(WARM)
	@$(BIN)/python $(BENCH)
	@$(BIN)/python $(STATES_BENCH)
	@$(BIN)/python $(KERNEL_BENCH)

bench-month: $(INSTALLED_DEV) $(WARM)
	@$(BIN)/python bench/month_bench.py

vmtest: $(WARM)
	@$(BIN)/python -m tools.vmtest $(KERNEL) $(VMTEST_FLAGS)

clean:
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "gmemlab needs Python 3.11 or newer; name it with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Creating $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV) >$(VENV).log 2>&1 \
		|| { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } >>$(VENV).log 2>&1 \
		|| { cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
			echo "$(PYTHON) cannot create a virtual environment: its module ensurepip is missing, and pip cannot stand in." >&2; \
			echo "Install it (Debian, Ubuntu: apt install python3-venv), or name another Python: make PYTHON=..." >&2; exit 2; }
	@rm -f $(VENV).log

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "Installing gmemlab and its dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	@echo "Installing gmemlab, its dependencies and the developers' tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(INSTALLED) $@

$(WARM): $(INSTALLED) $(CORE)
	@$(BIN)/python -m gmemlab.core.warm
	@touch $@
