# Two commands for a newcomer: `make demo` and `make test`. Both need a Python 3.11+ with venv and pip, and nothing else.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# An environment that is broken, or that belongs to a checkout that was moved, is made anew.
CHECK := import pathlib, servolt; print(pathlib.Path(servolt.__file__).resolve().is_relative_to(pathlib.Path.cwd().resolve()))
ifneq ($(shell $(BIN)/python -c '$(CHECK)' 2>/dev/null),True)
$(shell rm -f $(STAMP))
endif

.PHONY: demo test check unit slow engines-test format lock guide benchmarks clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(BIN)/servolt demo

test: check unit

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/pytest -m "not slow and not engines" -n 2 --dist loadgroup

slow: $(STAMP)
	$(BIN)/pytest -m "slow and not engines"

# Commands read by the engines' own parsers, each in an environment of its own outside the checkout (3.5 GB, kept).
engines-test: $(STAMP)
	$(BIN)/python -m tools.engine_envs
	$(BIN)/pytest -m engines -n 2 --dist loadgroup

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.first_token

# The built-in model from nothing, in an environment of its own: the only place that knows torch.
guide: .venv-guide/installed
	.venv-guide/bin/python -m tools.guide.build

.venv-guide/installed: tools/guide/requirements.txt
	$(PYTHON) -m venv --clear .venv-guide
	.venv-guide/bin/python -m pip install --quiet -r tools/guide/requirements.txt
	@touch $@

# Exact versions and hashes for every supported Python and platform, without the address of any index.
lock: $(STAMP)
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --upgrade --quiet -o constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "servolt needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	@echo "installing into .venv (about a minute the first time)" >&2
	@$(PYTHON) -m venv --clear .venv || ( \
		$(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip )
	@$(PIP) install --require-hashes -r constraints.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(STAMP)

clean:
	rm -rf .venv .venv-guide dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
