# demo   set up and run the main job: three networks at once on photographs
# test   set up and run the tests: in parallel, and then one by one those that need the machine alone
# check  format, lint, types, import rules
# bench  set up and print the benchmark tables (about 25 minutes; leave the machine alone)
# wheel     build a wheel for this system and Python into dist, its core compiled (needs a C compiler)
# compiled  install that wheel into out/compiled and run the tests of the core against it
# fuzz   set up and feed the program damaged files, e.g. `make fuzz MINUTES=30 SEED=1`
# soak   set up and overload engines for ten minutes, e.g. `make soak MINUTES=10`
# conformance  set up and run the official ONNX suite whole and cut, beside plain onnxruntime (minutes)
PYTHON ?= python3
VENV   ?= .venv
# As many processes for the tests as there are cores; a number sets it, 0 means one by one.
WORKERS ?= logical
# For how long `fuzz` and `soak` run, and what `fuzz` draws its cases from.
MINUTES ?= 10
SEED    ?= 1
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test check bench wheel compiled fuzz soak conformance clean
.DELETE_ON_ERROR:

# pip 25.1 is the first that reads dependency groups.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[openvino,images,report,compress,server,otel]' --group dev
	touch $@

demo: $(READY)
	$(BIN)/coinfer run examples/three-networks.yaml --json out/three-networks.json --trace out/three-networks.trace.json.gz

# Both run, whatever came of the first.
test: $(READY)
	@status=0; \
	$(BIN)/python -m pytest -q -m 'not alone' -n $(WORKERS) --maxprocesses 8 --dist loadgroup || status=1; \
	$(BIN)/python -m pytest -q -m alone || status=1; \
	exit $$status

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/run.py

wheel: $(READY)
	rm -rf out/compiled out/to_compile out/wheel && mkdir -p out/to_compile dist
	# In a copy, because hatch-mypyc takes pyproject.toml away while it compiles.
	cp -r pyproject.toml README.md LICENSE src out/to_compile
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir out/wheel out/to_compile
	cp out/wheel/coinfer-*.whl dist

compiled: wheel
	$(BIN)/python -m pip install --quiet --no-deps --target out/compiled out/wheel/coinfer-*.whl
	PYTHONPATH=out/compiled $(BIN)/python -m pytest -q tests/core tests/sim tests/policies tests/replay tests/metrics

fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --minutes $(MINUTES) --seed $(SEED)

soak: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz.soak --minutes $(MINUTES)

conformance: $(READY)
	PYTHONPATH=tests $(BIN)/python -m conformance.table
	PYTHONPATH=tests $(BIN)/python -m conformance.fused_table
	PYTHONPATH=tests $(BIN)/python -m conformance.torch_table

clean:
	rm -rf $(VENV) out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
