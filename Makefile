# Everything on a fresh machine with Python 3.11+: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The demo compiles what it uses of PyTorch, which takes a third of the time of compiling it all; see READY.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# What the environment has by now: s3seg with what it requires; also what tests and checks need; what a release needs.
BASE := $(VENV)/.base
READY := $(VENV)/.ready
RELEASE := $(VENV)/.release
# One more than there are cores, since tests also wait; at most four, for their memory.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
# Tests start many processes: each works on one core, and finds modules compiled, whatever the environment says.
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.DELETE_ON_ERROR:
.PHONY: demo test test-slow test-workers test-integrations docs check release sbom audit bench bench-serve bench-edge bench-cpu bench-gpu clean help

help:
	@echo "make demo       set up, then find things in a picture and draw them (out/demo.png)"
	@echo "make test       set up, then run the tests, one process more than there are cores, at most four"
	@echo "make test-slow  the tests that take longer: more of the same kills, draws, examples and sizes, and the whole training"
	@echo "make test-workers  the edge inside Cloudflare's runtime, which npm has"
	@echo "make test-integrations  the tests with other tools' own clients, installed beside"
	@echo "make docs       the documentation as a site (out/site/index.html), with every warning an error"
	@echo "make check      formatting, lint, types, layers"
	@echo "make release    build twice, compare, and try in empty environments of Python 3.11, 3.12 and 3.13"
	@echo "make sbom       list what an installation with all extras consists of, and the licences (out/sbom.json)"
	@echo "make audit      the same, then look for known vulnerabilities in it; asks PyPI"
	@echo "make bench      measure, side by side with the peers"
	@echo "make bench-serve  the gpu service beside LitServe"
	@echo "make bench-edge   the edge beside a bare Starlette route"
	@echo "make bench-cpu    prompts of full SAM 3 on the CPU, with random weights"
	@echo "make bench-gpu    on a CUDA card: equal to transformers, how fast, how busy (7 minutes)"

$(BASE): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (some minutes the first time, mostly for PyTorch) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "s3seg needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade "pip>=25.1"
	@$(PIP) -c constraints.txt --editable .
	@touch $@

# Some packages have files that are not for this Python, which is not an error.
$(READY): $(BASE)
	@echo "adding what tests and checks need ..."
	@$(PIP) -c constraints.txt --group dev
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

$(RELEASE): $(BASE)
	@$(PIP) --group release
	@touch $@

demo: $(BASE)
	@mkdir -p out
	@PYTHONDONTWRITEBYTECODE= $(BIN)/s3seg demo --output out/demo.png

test: $(READY)
	$(TESTING) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(READY)
	@$(PIP) -c constraints.txt --group ray --group docs --group release
	$(TESTING) $(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile=thorough

test-workers: $(READY)
	$(BIN)/python -m tests.cloudflare.runtime
	$(TESTING) $(BIN)/python -m pytest tests/cloudflare -m slow

# The clients' requirements contradict those of each other and of constraints.txt, so they have environments of their own.
test-integrations:
	@test -x .venv-integrations/bin/python || $(PYTHON) -m venv .venv-integrations
	@.venv-integrations/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@.venv-integrations/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group integrations
	@test -x .venv-label-studio/bin/python || $(PYTHON) -m venv .venv-label-studio
	@.venv-label-studio/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@.venv-label-studio/bin/python -m pip install --quiet --disable-pip-version-check --group label-studio
	LABEL_STUDIO=.venv-label-studio/bin/label-studio $(TESTING) .venv-integrations/bin/python -m pytest tests/integrations -m "slow or not slow"

# A link to a page, a heading or a file that is not there is a warning; addresses on the web are not asked.
docs: $(READY)
	@$(PIP) -c constraints.txt --group docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --write-all -c docs/site -d out/site-cache . out/site
	@echo "open out/site/index.html"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

release: $(RELEASE)
	$(BIN)/python packaging/check.py

# Of the wheels with all extras, in an environment of their own.
INSTALLED ?= .venv-installed
OUT ?= out
$(OUT)/sbom.json: $(RELEASE) packaging/sbom.py src/s3seg/__init__.py
	$(BIN)/python packaging/sbom.py --environment $(INSTALLED) --out $(OUT)

sbom: $(OUT)/sbom.json

audit: $(OUT)/sbom.json
	$(BIN)/python packaging/audit.py $(OUT)/sbom.json

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-serve: $(READY)
	@$(PIP) -c constraints.txt --group bench
	$(BIN)/python -m benchmarks serve

bench-edge: $(READY)
	$(BIN)/python -m benchmarks edge

bench-cpu: $(READY)
	$(BIN)/python -m benchmarks cpu

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks gpu

clean:
	rm -rf $(VENV) $(INSTALLED) out dist
