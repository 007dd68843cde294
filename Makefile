# Two commands do everything: `make quickstart` and `make test`. The rest is for those who work on meshnode.
# Everything lands in .venv and .tools; nothing outside the checkout is touched, except that `make tools` installs redis-server from the
# distribution's packages when it is missing and we are allowed to.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := tests/locked.txt
# Processes among which the tests are shared, file by file; much of their time goes into waiting for others'.
WORKERS ?= 2
DRIVERS := $(sort $(wildcard drivers/*))
EDITABLE := -e . $(addprefix -e ,$(DRIVERS))
# What a plain `pip install meshnode` brings: the drivers that pyproject.toml names.
EMBEDDED := $(filter $(addprefix drivers/,$(shell sed -n 's/^    "meshnode-driver-\([a-z-]*\)>.*/\1/p' pyproject.toml) sqlite-client),$(DRIVERS))
SOURCES := pyproject.toml $(LOCK) $(wildcard drivers/*/pyproject.toml)

# The system's certificates, as pip uses them: a machine behind a proxy of its own has the proxy's there.
export UV_SYSTEM_CERTS := true

.PHONY: quickstart test check lint types unit tools generate lock clean install

quickstart: $(VENV)/.quickstart
	$(BIN)/python -m meshnode quickstart

test: $(VENV)/.test
	$(MAKE) --no-print-directory -j2 tools check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# What a commit must pass before the tests run.
check: lint types
	$(BIN)/python -m meshnode.wire._generate --check
	$(BIN)/python drivers/etcd/generate.py --check

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

# The quick part, without servers or other languages' tools.
unit: $(VENV)/.test
	$(BIN)/python -m pytest tests/unit -m "not slow"

# The servers and the other languages' clients that the suites need; what cannot be had is named, its tests are skipped.
tools: $(VENV)/.test
	$(BIN)/python tests/support/install_tools.py

generate: $(VENV)/.test
	$(BIN)/python -m meshnode.wire._generate
	$(BIN)/python drivers/etcd/generate.py

# Resolve the newest versions that pyproject.toml allows.
lock: $(VENV)/.uv
	printf -- '-e %s\n' . $(DRIVERS) | $(BIN)/uv pip compile -q --universal --upgrade --no-header --no-annotate \
	  --group dev $(addprefix --no-emit-package ,meshnode $(addprefix meshnode-driver-,$(notdir $(DRIVERS)))) - -o $(LOCK)

install: $(VENV)/.test

$(VENV)/.uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'
	touch $@

$(VENV)/.quickstart: $(VENV)/.uv $(SOURCES)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q -c $(LOCK) -e . $(addprefix -e ,$(EMBEDDED)) 'dapr[grpc]>=1.19,<2'
	touch $@

$(VENV)/.test: $(VENV)/.uv $(SOURCES)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q -c $(LOCK) $(EDITABLE) --group dev
	touch $@

clean:
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .hypothesis
