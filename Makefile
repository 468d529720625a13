# make demo       the whole job on generated videos, about six minutes on two cores, the installation with it
# make test       every check and test; on a processor with AVX-512 the numerical tests a second time with AVX2
# make quick      lint, types, contract and the fastest tests, in under a minute
# make test-avx2  the numerical tests with all vectors held to AVX2
# make soak       twenty minutes of random kills and numbers of processes; the bits must be those of one process
# make studies-small  all six experiments of the paper on generated videos, three seeds
# make docs       the documentation as a site, build/docs/index.html
# Each sets up .venv first and does so again only when what it is made from has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What computes: the last bits hang on how wide a processor's vectors are.
NUMERICAL := tests/fast tests/space/test_dense.py tests/space/test_network.py tests/space/test_supernet.py \
  tests/search/test_objective.py tests/search/test_search_stage.py tests/search/test_step.py \
  tests/training/test_training_step.py
# What takes seconds. A change of one part wants that part's tests, too.
QUICK := tests/runtime tests/data/listing tests/search/test_derive.py tests/search/test_objective.py \
  tests/space/test_genotype.py tests/training/test_metrics.py tests/test_settings.py tests/test_project.py
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 PVNAS_CXXFLAGS=-mno-avx512f
PYTEST := $(BIN)/pytest --numprocesses 2 --dist worksteal

.PHONY: demo test quick checks test-avx2 soak studies-small docs clean

demo: $(READY)
	$(BIN)/pvnas demo

test: checks
	$(MAKE) -j2 mypy-3.12 mypy-3.13
	$(PYTEST) --durations=10
	@if grep -qs avx512f /proc/cpuinfo; then $(MAKE) test-avx2; \
	else echo 'AVX2: no second run of the numerical tests, this processor has no wider vectors'; fi

quick: checks
	$(PYTEST) $(QUICK) --ignore tests/runtime/test_checkpoint.py

checks: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pre-commit validate-config

mypy-%: $(READY)
	$(BIN)/mypy --python-version $*

test-avx2: $(READY)
	$(AVX2) $(PYTEST) $(NUMERICAL)

soak: $(READY)
	$(BIN)/python benchmarks/soak.py build/soak

studies-small: $(READY)
	$(BIN)/pvnas data shapes build/studies/shapes --videos-per-class 84 --seed 0
	$(BIN)/pvnas data shapes build/studies/other --videos-per-class 84 --seed 1
	$(BIN)/pvnas study all build/studies/shapes --searched-on build/studies/other --dir build/studies/out --jobs 2 \
	  --preset demo --search.epochs 4 --train.epochs 10 --only 'searched/*' 'schedules/*' 'stops/*' 'widths/*' 'random/*' \
	  'transfer/*' 'peers/*-matched/*' 'peers/x3d-s/*'

docs: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky docs build/docs

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .import_linter_cache .hypothesis
