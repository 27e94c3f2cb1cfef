# Everything a newcomer needs. Each target does its own set-up, and needs only Python 3.11 and a C compiler.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

export OMP_NUM_THREADS ?= 2

.PHONY: demo test quick check lint bench peers bundle evaluation selectors ibsi conformance storage measure-acceptance torture faults soak fuzz field hostile viewers clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 22

# PyRadiomics' last usable release is an sdist that needs numpy, and a setuptools that still has pkg_resources, to be
# there when it is built; so those come first, and the build must not be isolated from them.
$(VENV)/.appliance: pyproject.toml constraints.txt appliance/radiomics/_kernels.c
	$(PYTHON) -m venv $(VENV)
	$(PIP) numpy setuptools wheel
	$(PIP) --no-build-isolation --no-binary pyradiomics pyradiomics
	$(PIP) --editable .
	@touch $@

$(VENV)/.everything: $(VENV)/.appliance
	$(PIP) --editable '.[training,dev]'
	@touch $@

demo: $(VENV)/.appliance ## a phantom study through the real daemon, with the shipped bundle
	$(BIN)/lungstage demo

# A file of tests is one process's, because what its tests share may be dear. (loadgroup groups nothing under pytest 9.2:
# pytest-dev/pytest-xdist#1386.)
test: $(VENV)/.everything ## the whole suite, in under ten minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The laws that a change breaks first: extraction, reading, ledger, and the daemon with steps that answer at once.
QUICK := tests/system/test_docs.py $(wildcard $(addprefix tests/appliance/, \
	cli config contract daemon dicom intake radiomics staging state report/test_outbox.py report/test_vocabulary.py))
LEFT_OUT := dicom/test_compression.py dicom/test_multiframe.py radiomics/test_ibsi.py radiomics/test_ibsi_grid.py

quick: $(VENV)/.everything ## under a minute: format, style, import directions, and the fast core of the suite
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile -m 'not slow' \
		$(addprefix --ignore=tests/appliance/,$(LEFT_OUT)) $(QUICK)

lint: $(VENV)/.everything ## format, style, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## lint, then the whole suite; what a change must pass

peers: $(VENV)/.everything ## environments for the libraries that bench compares with (PEERS_PYTHON=..., 3.12 or later)
	$(BIN)/python -m tests.long.benchmarks.peers.environments

# A library whose environment cannot be made is named on the page; the rest is measured all the same.
bench: $(VENV)/.everything ## benchmarks: ratios within one run; writes docs/benchmarks.md and docs/end-to-end.md
	-$(MAKE) peers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.extraction
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.end_to_end
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.training

measure-acceptance: $(VENV)/.everything ## 200 studies, local and on Dask, with kills: the same bytes
	$(BIN)/python -m tests.long.benchmarks.measuring

ibsi: $(VENV)/.everything ## agreement with IBSI's consensus values (LUNGSTAGE_DATA=...); writes docs/ibsi.md
	$(BIN)/python -m tests.long.conformance.ibsi_table

conformance: $(VENV)/.everything ## what the code reads and writes; writes the tables of docs/conformance.md
	$(BIN)/python -m tests.long.conformance.write

storage: $(VENV)/.everything ## what a study leaves behind in outbox, state folder and log
	$(BIN)/python -m tests.long.benchmarks.storage

torture: $(VENV)/.everything ## 500 studies while the daemon is killed 200 times: none lost, none doubled, none torn
	$(BIN)/python -m tests.long.reliability.torture

faults: $(VENV)/.everything ## the same with disk errors injected at every site that writes
	$(BIN)/python -m tests.long.reliability.faults

soak: $(VENV)/.everything ## 6,000 studies at full rate, and 100,000 files: memory, descriptors, growth
	$(BIN)/python -m tests.long.reliability.soak

SEED ?= 1
COUNT ?= 20000
fuzz: $(VENV)/.everything ## damaged DICOM (SEED=1 COUNT=20000) through the confined processes, held against a second reader
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.reliability.fuzz --seed $(SEED) --count $(COUNT)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.reliability.folder --seed $(SEED)

viewers: $(VENV)/.everything ## SR, SEG and PDF in OHIF on Orthanc, in a network namespace (LUNGSTAGE_DATA=...); pictures in runs/viewers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.viewers.check

field: $(VENV)/.everything ## files as hospitals send them (LUNGSTAGE_DATA=...): each right, or refused in words; writes docs/field-cases.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.field.check

hostile: $(VENV)/.everything ## the verdict on every hostile file of LUNGSTAGE_DATA, and on studies that only look like a CT
	$(BIN)/python -m tests.long.reliability.hostile

selectors: $(VENV)/.everything ## recall of every selector on made-up tables whose truth is known
	$(BIN)/lungstage-train benchmark-selectors -o runs/selectors.json

evaluation: $(VENV)/.everything ## the whole comparison on the LUNG1 table (TABLE=...), and its report
	$(BIN)/lungstage-train evaluate $(TABLE) -o runs/lung1-stage --demonstrate-leakage
	$(BIN)/lungstage-train report runs/lung1-stage

bundle: $(VENV)/.everything ## rebuild the shipped bundle from the LUNG1 table (TABLE=...)
	$(BIN)/lungstage-train fit $(TABLE) -o runs/lung1-stage
	$(BIN)/lungstage-export build runs/lung1-stage -o models/lung1-stage

clean: ## remove what the other targets made
	rm -rf $(VENV) .peers runs build *.egg-info appliance/radiomics/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
