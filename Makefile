# Needs Python 3.11 or newer with pip, make and git; everything else goes into .venv, pinned and checked by requirements.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(VENV)/.packages
STAMP := $(VENV)/.installed

# The first of these that is recent enough; `make PYTHON=/path/to/python3.12 test` picks another one.
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
PIP = $$(test -x $(BIN)/pip && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
CODE := $(wildcard pik tests bench tools)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE # or every process compiles all of pik again

.PHONY: help venv .venv-ministack .venv-sam .venv-checkov .venv-seaweedfs .venv-docs .venv-hadolint .venv-spark .venv-spark-connect .venv-spark35 demo demo-aws demo-aws-stop test lint lint-stack lint-docs test-deep bench bench-cluster docs dist lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-19s %s\n", $$1, $$2}'

# A changed lock makes a new environment; a changed pyproject.toml only installs the package again.
# Some systems leave ensurepip out of their Python: then its own pip installs into the environment from outside. What is
# imported is compiled then: that is a small part of what is installed.
$(PACKAGES): requirements.lock
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (once; takes a minute) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV); }
	@$(PIP) install -qq --no-compile --require-hashes -r requirements.lock
	@touch $@

$(STAMP): $(PACKAGES) pyproject.toml
	@$(PIP) install -qq --no-index --no-deps --no-build-isolation -e .
	@touch $@

venv: $(STAMP) ## set up .venv

# Tools that cannot share an environment each have one of their own: .venv-NAME from tools/envs/NAME.lock.
.venv-%/.locked: tools/envs/%.lock
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up .venv-$* (once) ..."
	@rm -rf .venv-$*
	@$(PYTHON) -m venv .venv-$* >/dev/null 2>&1 || { rm -rf .venv-$* && $(PYTHON) -m venv --without-pip .venv-$*; }
	@$(PYTHON) -m pip --python .venv-$*/bin/python install -qq --no-compile --no-deps --require-hashes -r tools/envs/$*.lock
	@touch $@

.venv-ministack: .venv-ministack/.locked
.venv-sam: .venv-sam/.locked
.venv-checkov: .venv-checkov/.locked
.venv-seaweedfs: .venv-seaweedfs/.locked
.venv-docs: .venv-docs/.locked
.venv-hadolint: .venv-hadolint/.locked
.venv-spark: .venv-spark/.locked
.venv-spark-connect: .venv-spark-connect/.locked
.venv-spark35: .venv-spark35/.locked

demo: $(STAMP) ## set up, then play an incident from the first question to the repair
	@$(BIN)/pik demo

# PYTHON runs pip for the functions' packages; `.venv` may have none.
demo-aws: $(STAMP) .venv-ministack/.locked .venv-sam/.locked ## the same in the whole stack, emulated here; it goes on running
	@PYTHON="$(PYTHON)" $(BIN)/python -m tools.demo_aws start .demo-aws

demo-aws-stop: ## end what demo-aws left running
	@$(PYTHON) -m tools.demo_aws stop .demo-aws

lint: $(STAMP) ## the checks without the tests
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo

# No tool calls home: neither SAM's telemetry nor checkov's downloads.
lint-stack: .venv-sam/.locked .venv-checkov/.locked .venv-hadolint/.locked ## the checks of template.yaml and the Dockerfiles
	@SAM_CLI_TELEMETRY=0 .venv-sam/bin/sam validate --lint >/dev/null
	@.venv-sam/bin/cfn-lint template.yaml
	@.venv-checkov/bin/checkov --framework cloudformation --file template.yaml --skip-download --compact --quiet
	@.venv-hadolint/bin/hadolint Dockerfile packaging/Dockerfile.spark

# A warning, such as a broken link or a page that the navigation lacks, is an error; --quiet would hide it from --strict.
SITE = NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Two checks at a time: each uses one core at most, or waits for packages. Newer makes keep their output apart.
test: $(STAMP) ## all checks and the tests but the slow ones
	@$(MAKE) --no-print-directory -j 2 $(and $(filter output-sync,$(.FEATURES)),--output-sync) \
		lint-stack lint lint-docs .venv-ministack/.locked .venv-spark/.locked
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

SPARKS = .venv-spark/.locked .venv-spark-connect/.locked .venv-spark35/.locked

test-deep: $(STAMP) .venv-ministack/.locked .venv-sam/.locked .venv-seaweedfs/.locked $(SPARKS) ## the slow tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

bench: $(STAMP) ## the benchmarks, into docs/benchmarks.md; BENCH_ARGS="--deep" and the like go to bench.run
	@$(BIN)/python -m bench.run $(BENCH_ARGS)

bench-cluster: $(STAMP) .venv-spark/.locked ## what a Spark cluster costs beside one process; needs Java 17, takes ten minutes
	@$(BIN)/python -m bench.cluster $(BENCH_ARGS)

docs: $(STAMP) .venv-docs/.locked ## write the generated pages again, and the site with all pages to site/
	@$(BIN)/python -m tools.gen_docs
	@$(SITE) --site-dir site

lint-docs: .venv-docs/.locked ## build the site: every link of it works, and no page loads anything from the network
	@site=$$(mktemp -d) && $(SITE) --site-dir "$$site" && ! grep -rE '<(script|img)[^>]* src="?https?:|<link[^>]* rel="?stylesheet"?[^>]* href="?https?:' "$$site" --include=*.html; \
		status=$$?; rm -rf "$$site"; exit $$status

# The time that stands in the archives is the commit's; an unpacked sdist keeps it as the time of its PKG-INFO.
SOURCE_DATE_EPOCH ?= $(shell if test -f PKG-INFO; then date -r PKG-INFO +%s; else git log -1 --format=%ct; fi)

dist: $(STAMP) ## build sdist and wheel into dist/; the same commit gives the same bytes
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(BIN)/python -m hatchling build 2>&1 | grep ^dist/

COMPILE = .venv-lock/bin/uv pip compile --no-config --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --quiet $(LOCK_ARGS)

lock: ## fit the locks to pyproject.toml and the .in files; LOCK_ARGS=--upgrade takes the newest releases of everything
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install -qq uv==$(UV_VERSION); }
	@$(COMPILE) pyproject.toml --extra bench --extra dev --extra kafka --extra lambda --extra report -o requirements.lock
	@for in in tools/envs/*.in; do $(COMPILE) $$in -o $${in%.in}.lock || exit 1; done
	@$(COMPILE) pyproject.toml -c requirements.lock -o packaging/image.lock
	@for in in packaging/*.in; do $(COMPILE) $$in -c requirements.lock -o $${in%.in}.lock || exit 1; done

clean: ## remove what these targets made, stores and benchmark inputs excepted
	@test ! -e .demo-aws || $(MAKE) --no-print-directory demo-aws-stop
	@rm -rf $(VENV) .venv-* build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .aws-sam
	@find $(CODE) docs -name __pycache__ -type d -prune -exec rm -rf {} +
