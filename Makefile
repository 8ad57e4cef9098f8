# make demo | test | test-slow | lint | bench. Each makes .venv when it is missing and reinstalls only when a requirements file changed.
# make demo MODEL=tiny    make demo BASE=<hub id or folder> ARGS=--no-serve    make bench PART=data    make test ARGS="-k ledger"
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -n 2 --dist loadgroup
PART ?= data pack train serve routing judge
export OMP_NUM_THREADS ?= 1

demo: .venv/.runtime
	exec $(PY) -m apps.quickstart $(if $(MODEL),--model $(MODEL)) $(if $(BASE),--base $(BASE)) $(ARGS)

test: .venv/.dev
	$(PYTEST) -m "not slow and not gpu and not sky_e2e" $(ARGS)

test-slow: .venv/.dev
	$(PYTEST) -m "slow and not gpu and not sky_e2e" $(ARGS)

lint: .venv/.dev
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright --pythonpath $(PY)

bench: .venv/.dev
	for part in $(PART); do $(PY) -m benchmarks.$$part $(ARGS) || exit 1; done

.venv/.runtime: requirements.txt
	$(call install,requirements.txt)

.venv/.dev: requirements.txt requirements-dev.txt
	$(call install,requirements-dev.txt)
	touch .venv/.runtime

# uv when it is present, else pip. uv does not read pip's settings, so pip's find-links and extra indexes are handed to it: a CPU build of
# torch offered there is found by both.
pip_setting = $$($(PY) -m pip config get :env:.$(1) 2>/dev/null || $(PY) -m pip config get global.$(1) 2>/dev/null | xargs)
define install
	@test -n "$(PYTHON)" || { echo "Cria needs Python 3.11 or 3.12 on PATH, or: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing $(1) into .venv: a minute or two, about 2 GB"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@if command -v uv >/dev/null; then UV_FIND_LINKS="$${UV_FIND_LINKS:-$(call pip_setting,find-links)}" UV_EXTRA_INDEX_URL="$${UV_EXTRA_INDEX_URL:-$(call pip_setting,extra-index-url)}" \
	UV_INDEX_STRATEGY=unsafe-best-match uv pip install --quiet --compile-bytecode --python $(PY) -r $(1); else $(PY) -m pip install --quiet -r $(1); fi
	@touch $@
endef

.PHONY: demo test test-slow lint bench
