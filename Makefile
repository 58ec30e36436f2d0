# The commands of the house. `make quickstart` trains on real images, `make test` checks everything; both install what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: setup setup-test setup-spark setup-bench setup-dev build test quickstart docs format format-check lint sanitize tsan fuzz fuzz-replay bench bench-guard bench-tables bench-tune \
  wheel check-wheel clean

PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
# Compiler jobs at once; fewer where memory is short (a job takes up to 1.5 GB).
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60

APT_BUILD := cmake ninja-build g++ ccache pkg-config python3-venv python3-dev libgtest-dev libgmock-dev libyaml-cpp-dev \
  libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libxsmm-dev libhwy-dev libxbyak-dev libcairo2-dev \
  libpng-dev libturbojpeg0-dev libwebp-dev zlib1g-dev libeigen3-dev libboost-dev libsqlite3-dev libpq-dev dataset-fashion-mnist
APT_DEV := clang clang-format clang-tidy libclang-rt-14-dev libomp-14-dev

SOURCES = $(shell git ls-files '*.cc' '*.h')
# clang-tidy takes seconds per file, so `make lint` covers what everything else includes; LINT_FILES="..." names others.
LINT_FILES ?= $(wildcard src/base/*.cc src/graph/*.cc)

setup: $(VENV)/.build-stamp            ## system packages and .venv for building and running
setup-test: $(VENV)/.test-stamp .venv-featuretools/.stamp  ## also what only tests need (torch, Featuretools, a PostgreSQL server)
setup-spark: .venv-spark/.stamp        ## also Spark, which pipelines as SQL are tried in (half a gigabyte, Java)
setup-bench: $(VENV)/.bench-stamp      ## also what bench/ compares with (ONNX Runtime, OpenVINO, JAX)
setup-dev: $(VENV)/.dev-stamp          ## also clang and its tools

$(VENV)/.build-stamp: requirements.txt
	tools/apt_install.sh $(APT_BUILD)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.test-stamp: requirements-test.txt $(VENV)/.build-stamp
	tools/apt_install.sh postgresql locales
	$(BIN)/python -m pip install -q -r requirements-test.txt
	touch $@

.venv-featuretools/.stamp: requirements-featuretools.txt $(VENV)/.build-stamp
	$(PYTHON) -m venv .venv-featuretools
	.venv-featuretools/bin/python -m pip install -q -r requirements-featuretools.txt
	touch $@

.venv-spark/.stamp: requirements-spark.txt $(VENV)/.build-stamp
	tools/apt_install.sh default-jre-headless
	$(PYTHON) -m venv .venv-spark
	.venv-spark/bin/python -m pip install -q -r requirements-spark.txt
	touch $@

$(VENV)/.bench-stamp: requirements-bench.txt $(VENV)/.test-stamp
	$(BIN)/python -m pip install -q -r requirements-test.txt -r requirements-bench.txt
	touch $@

$(VENV)/.dev-stamp: $(VENV)/.build-stamp
	tools/apt_install.sh $(APT_DEV)
	touch $@

CONFIGURE = cmake -DONEDNN_ROOT=$(VENV) -DPython_EXECUTABLE=$(BIN)/python

build: setup
	$(CONFIGURE) --preset release
	ninja -C build -j$(JOBS)

quickstart: build
	build/deepseek train examples/fashion_mnist.yaml

# In CI also what takes minutes: format, lint, the sanitizers, the fuzzers; after the tests the guard of our speed, which only
# warns. The last line is the tests' summary.
# OMP_WAIT_POLICY: with more threads than cores, spinning ones would steal the time of those that work.
test: setup-test build $(if $(filter true,$(CI)),setup-spark)
	$(BIN)/python tools/check_layers.py
	$(BIN)/python tools/check_links.py
	$(if $(filter true,$(CI)),$(MAKE) --no-print-directory format-check lint sanitize fuzz-replay)
	OMP_WAIT_POLICY=passive ctest -j$(JOBS) --test-dir build --output-on-failure --no-tests=error
	@if compgen -G 'tests/python/test_*.py' >/dev/null; then \
	  PYTHONPATH=$(CURDIR)/build/python OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n$(JOBS) --dist loadfile tests/python | tee build/pytest.log; \
	  if [ "$(CI)" = true ]; then timeout 60 env $(BENCH) bench/guard.py || echo "warning: the guard of our speed did not end well"; \
	    tail -n1 build/pytest.log; fi; \
	fi

format: setup-dev
	clang-format -i $(SOURCES)

format-check: setup-dev
	clang-format --dry-run -Werror $(SOURCES)

lint: setup-dev
	$(CONFIGURE) --preset release
	printf '%s\n' $(LINT_FILES) | xargs -P$(JOBS) -n1 clang-tidy --quiet -p build 2> >(grep -v 'warnings generated' >&2)

# The C++ tests under AddressSanitizer, its leak check and UBSan, in build-asan/.
sanitize: setup-dev
	$(CONFIGURE) --preset dev
	ninja -C build-asan -j$(JOBS)
	OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 \
	  LSAN_OPTIONS=suppressions=$(CURDIR)/tests/leaks.supp:print_suppressions=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  ctest -j$(JOBS) --test-dir build-asan --output-on-failure --no-tests=error

# Several threads at once under ThreadSanitizer, in build-tsan/. One OpenMP thread: its barriers are none that it knows.
tsan: setup-dev
	$(CONFIGURE) --preset tsan
	ninja -C build-tsan -j$(JOBS) test_threads test_runtime test_data test_infer
	for test in threads runtime data infer; do OMP_NUM_THREADS=1 TSAN_OPTIONS=halt_on_error=0:exitcode=66:suppressions=$(CURDIR)/tests/tsan.supp \
	  build-tsan/tests/test_$$test --gtest_brief=1 || exit 1; done

# Every target of tests/fuzz from the seeds in tests/fuzz/corpus: `fuzz` at random, together FUZZ_SECONDS; `fuzz-replay`, in CI,
# the seeds and what a fixed seed makes of them, the same every time. What they find is left in build-asan/fuzz/<target>-crash-*;
# `build-asan/tests/fuzz/fuzz_<target> FILE` runs it again.
FUZZ_TARGETS := $(notdir $(wildcard tests/fuzz/corpus/*))
fuzz: FUZZ_FLAGS = -max_total_time=$$(( ($(FUZZ_SECONDS) + $(words $(FUZZ_TARGETS)) - 1) / $(words $(FUZZ_TARGETS)) )) -print_final_stats=1
fuzz: FUZZ_FOUND = found
fuzz-replay: FUZZ_FLAGS = -runs=2000 -seed=1
fuzz-replay: FUZZ_FOUND = replayed
fuzz fuzz-replay: setup-dev
	$(CONFIGURE) --preset dev
	ninja -C build-asan -j$(JOBS) fuzzers
	mkdir -p build-asan/fuzz; cd build-asan/fuzz; rm -rf replayed; found=$(FUZZ_FOUND); export OMP_NUM_THREADS=1 found; \
	xargs -P$(JOBS) -n1 bash -c 'mkdir -p $$found/$$0; code=0; ../tests/fuzz/fuzz_$$0 $$found/$$0 $(CURDIR)/tests/fuzz/corpus/$$0 \
	  -artifact_prefix=$$0- $(FUZZ_FLAGS) -timeout=10 -rss_limit_mb=2048 -max_len=8192 -len_control=0 \
	  -verbosity=0 >$$0.log 2>&1 || code=1; sed "s/^/$$0: /" $$0.log; exit $$code' <<<"$(FUZZ_TARGETS)"

BENCH := PYTHONPATH=$(CURDIR)/build/python $(BIN)/python

bench: setup-bench build               ## the yardstick: our speed beside every peer's; BENCH_FLAGS="--only lstm" for one row
	$(BENCH) bench/models.py $(BENCH_FLAGS)
	$(BENCH) bench/import_time.py

bench-tables: setup-bench build        ## cleaning beside pandas and Polars, features beside Featuretools, augmentation beside PyTorch and albumentations
	$(BENCH) bench/tables.py $(BENCH_FLAGS)
	$(BENCH) bench/features.py
	$(BENCH) bench/value.py
	$(BENCH) bench/augment.py

bench-tune: setup-bench build          ## our samplers beside Optuna's: regret, time, killed workers; BENCH_FLAGS="--seeds 30" for all (hours), --families, --sides
	$(BENCH) bench/tune_tables.py
	$(BENCH) bench/tune.py $(BENCH_FLAGS)
	$(BENCH) bench/tune.py --cost
	$(BENCH) bench/tune_faults.py

bench-guard: setup-test build          ## half a minute: warns where a ratio to PyTorch has fallen
	$(BENCH) bench/guard.py

docs: build                            ## build/docs/ops.md: every op, and what runs it in which element type
	mkdir -p build/docs
	build/deepseek ops --table > build/docs/ops.md

# Against .venv's packages, in a folder that stays, so that objects are built once; `pip install .` fetches what it needs.
wheel: setup                           ## a wheel of this machine's libraries in dist/
	rm -f dist/deepseek-*.whl
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip wheel -q --no-build-isolation --no-deps -w dist -Cbuild-dir=build-wheel .

check-wheel: wheel                     ## installs it into a fresh environment and tries it there
	folder=$$(mktemp -d); trap 'rm -rf $$folder' EXIT; \
	$(PYTHON) -m venv $$folder/venv; $$folder/venv/bin/pip install -q dist/deepseek-*.whl mypy; \
	cd $$folder; venv/bin/python $(CURDIR)/tools/smoke_wheel.py

clean:
	rm -rf build build-asan build-tsan build-wheel dist
