# What a fresh clone can do: `make demo` and `make test` need python3 (3.11 or newer), a C compiler and make.
#
# Each interpreter has its own virtual environment in the checkout:
#   make test                      .venv
#   PYTHON=python3.12 make test    .venv-3.12

PYTHON ?= python3
ifeq ($(origin CC),default)
CC := $(firstword $(shell command -v cc || command -v gcc || command -v clang || :) cc)
endif
# More arguments for pytest: make test PYTEST_ARGS="-k poll -x"
PYTEST_ARGS ?=

ifeq ($(PYTHON),python3)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
endif

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check install

INSTALLED := $(VENV)/.installed
NATIVE    := $(VENV)/.native
CORE      := $(wildcard cbits/*.c cbits/*.h cbits/include/*.h) cbits/build_ffi.py setup.py
TYPED     := shmpipe tools/shmpipe_tools tests

# The strict build of the C core runs with each of these that the machine has.
COMPILERS := $(shell for each in gcc clang; do command -v $$each || :; done)
ifeq ($(COMPILERS),)
COMPILERS := $(CC)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build test pytest demo lint cbits unit_c stolen sweep crash crash_all hostile hostile_asan fuzz pydev bench torture clean asan ubsan tsan model mutants

help: ## This list
	@awk -F ':.*## ' '/^[a-z_]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(INSTALLED) $(NATIVE) ## Virtual environment with shmpipe installed, editable

test: build cbits unit_c sweep lint pytest ## Everything: C with all warnings as errors, C unit tests, kills, lint, pytest

pytest: build ## The Python test suites alone (PYTEST_ARGS="-k poll")
	$(PY) -m pytest $(PYTEST_ARGS)

demo: build ## A tour in half a minute
	@$(PY) -m shmpipe_tools.demo

lint: build ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m mypy $(TYPED)

cbits: build ## libshmpipe for C programs, strictly, with gcc and with clang
	@set -e; for cc in $(COMPILERS); do \
	    echo "cbits: $$(basename $$cc)"; \
	    $(MAKE) -s -j2 -C cbits CC=$$cc BUILD=build/$$(basename $$cc); \
	    $$cc -std=c11 -O2 -Wall -Wextra -Wconversion -Werror -fsyntax-only -D_GNU_SOURCE \
	        -DPy_LIMITED_API=0x030b0000 -Icbits/include -Icbits \
	        -isystem $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))') \
	        cbits/fastcall.c; \
	done

unit_c: cbits ## The C unit tests, and a sample of those with hostile peers
	@$(MAKE) -s -C tests/unit_c check
	@$(MAKE) -s -C tests/hostile check CC=$(firstword $(COMPILERS))
	@$(MAKE) -s -C tests/hostile/fuzz replay CC=$(firstword $(COMPILERS))

stolen: build ## The C unit tests and the Python test suites while each CPU is taken away for up to 25 ms at a time (root; six minutes)
	@$(MAKE) -s -C tests/unit_c
	$(PY) tests/support/steal.py 25 60 tests/unit_c/build/unit
	$(PY) tests/support/steal.py 25 60 $(PY) -m pytest $(PYTEST_ARGS)

hostile: build ## Damaged segments and hostile peers, all cases (about two minutes)
	@$(MAKE) -s -C tests/hostile all-of-it
	@$(MAKE) -s -C tests/hostile/fuzz replay
	HOSTILE_STEPS=1000 $(PY) -m pytest tests/hostile

hostile_asan: ## The C part of it, all cases, with the sanitizers for addresses and undefined behaviour
	@$(MAKE) -s -C tests/hostile sanitized
	@$(MAKE) -s -C tests/hostile/fuzz sanitized CC=$(firstword $(COMPILERS))

sweep: ## A process killed at each change that an operation makes, in each context
	@$(MAKE) -s -C tests/crash/sweep check

crash: build ## At every instruction (of most loops some passes; after another death each 4th), and the proof that it would notice (half an hour)
	@$(MAKE) -s -C tests/crash/sweep all-of-it
	@$(PY) tests/crash/sweep/mutants.py

crash_all: build ## The same, and each instruction after another death or a meeting; CC=clang for that build (more than an hour)
	@$(MAKE) -s -C tests/crash/sweep each-of-it

mutants: build ## The core broken by rule, 170 ways: a C test must be red each time, or the sweep (half an hour)
	@$(PY) tests/unit_c/mutants.py
	@$(PY) tests/crash/sweep/mutants.py

pydev: build ## The Python test suites with -X dev and -W error (but for fork beside threads, which is their subject)
	$(PY) -X dev -W error -m pytest -W ignore::DeprecationWarning:multiprocessing.popen_fork $(PYTEST_ARGS)

fuzz: ## libFuzzer on attach, inspect, check and calls, with ASan and UBSan (FUZZ_SECONDS=60; needs clang)
	@$(MAKE) -s -C tests/hostile/fuzz $@

asan: ; @$(MAKE) -s -C tests/unit_c $@ && $(MAKE) -s -C tests/hostile $@ ## The C tests with the address sanitizer
ubsan: ; @$(MAKE) -s -C tests/unit_c $@ && $(MAKE) -s -C tests/hostile $@ ## The same with the sanitizer for undefined behaviour
tsan: ; @$(MAKE) -s -C tests/unit_c $@ ## The same with the thread sanitizer

# SEED=... repeats a run; TORTURE="--stop 1 --ops 20000" runs other stressors.
TORTURE ?= --kill 1 --ops 200000
torture: build ## 200,000 kill -9 at pipes that work, every byte accounted for (10 to 30 minutes)
	@$(PY) -m shmpipe_tools torture $(TORTURE) --timeout 1750 $(if $(SEED),--seed $(SEED))

model: ## The wake protocol, in Promela, and explored in all scopes (minutes, some GB)
	@wrong=0; for part in spin all; do $(MAKE) -s -C tests/model $$part || wrong=1; done; exit $$wrong

bench: build ## shmpipe beside os.pipe on this machine
	@$(PY) -m shmpipe_tools bench

clean: ## Removes what was built, and the virtual environments
	rm -rf .venv .venv-* build dist *.egg-info shmpipe/*.so cbits/build tests/unit_c/build
	rm -rf tests/model/build tests/crash/sweep/build tests/hostile/build tests/hostile/fuzz/build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

# $(error) and not a failing command: then what is missing is the only line that make prints.
PREFLIGHT = $(shell sh tools/dev/preflight.sh '$(PYTHON)' '$(CC)' 2>&1)

$(INSTALLED): pyproject.toml Makefile
	$(if $(PREFLIGHT),$(error $(PREFLIGHT)))
	@echo "installing into $(VENV)"
	@$(PY) -c '' 2>/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@$(PIP) 'setuptools>=77' 'cffi>=1.17'
	@CC="$(CC)" $(PIP) --no-build-isolation -e '.[dev]'
	@touch $@ $(NATIVE)

# The same extension module serves every virtual environment: it is built in place, for the stable ABI.
$(NATIVE): $(CORE) | $(INSTALLED)
	@echo "building shmpipe._native"
	@CC="$(CC)" $(PY) setup.py -q build_ext --inplace
	@touch $@
