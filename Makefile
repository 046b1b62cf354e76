# make demo   set everything up and run real allreduces beside Gloo and MPI (table on the screen, plot in out/)
# make test   set everything up and run every test, sanitizer builds included
# make bench  the full comparison with every MPI that installs (about a quarter of an hour)
# make lint   every static gate
#
# All of it works on a fresh Debian machine. System packages (compiler, Python headers, GoogleTest, clang-tidy) are
# installed with apt-get when this runs as root, and asked for by name when it does not.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
# Warnings of the compiler are errors wherever we build, but not for those who install pycomm.
WERROR = --config-settings=cmake.define.PYCOMM_WERROR=ON
NATIVE = CMakeLists.txt $(shell find native -name '*.cc' -o -name '*.h' -o -name '*.txt' -o -name '*.cmake')

.PHONY: demo test bench lint setup setup-dev quick clean

demo: setup $(VENV)/.impi
	$(BIN)/python benchmarks/demo.py --output out

test: setup-dev $(VENV)/.mpis
	$(BIN)/python -m pytest tests --durations=40

quick: setup-dev
	$(BIN)/python -m pytest tests -m "not slow"

bench: setup $(VENV)/.mpis
	$(BIN)/python benchmarks/compare.py --output out

lint: setup-dev
	bash .ci/lint

setup: $(VENV)/.run $(VENV)/.built
setup-dev: $(VENV)/.dev $(VENV)/.built

$(VENV)/.run: pyproject.toml constraints.txt .ci/system
	bash .ci/system build
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt numpy msgspec click rich networkx scipy matplotlib ml_dtypes torch mpi4py \
	  scikit-build-core pybind11 cmake ninja
	touch $@

$(VENV)/.dev: $(VENV)/.run
	bash .ci/system test
	$(PIP) install -q -c constraints.txt pytest pytest-mpi pytest-timeout hypothesis ruff mypy import-linter clang-format \
	  expecttest
	touch $@

$(VENV)/.built: $(VENV)/.run pyproject.toml $(NATIVE)
	$(PIP) install -q --no-build-isolation --no-deps $(WERROR) -e .
	touch $@

# MPI libraries from PyPI, each in build/mpi/NAME. Which ones install is reported; peers that are missing are left out.
# The demonstration meets the fastest MPI on one host, which also yields when ranks outnumber cores; MPICH elsewhere.
$(VENV)/.impi: $(VENV)/.run .ci/mpi
	PYTHON=$(BIN)/python bash .ci/mpi impi || PYTHON=$(BIN)/python bash .ci/mpi mpich
	touch $@

$(VENV)/.mpis: $(VENV)/.run .ci/mpi
	PYTHON=$(BIN)/python bash .ci/mpi
	touch $@

clean:
	rm -rf build out $(VENV)
