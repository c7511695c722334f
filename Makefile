# Two commands: `make book` (environment, demo notebooks, site) and `make test`.
# Needs Python 3.11.4 to 3.14, make (3.81 will do) and a package registry. No GPU, no dataset.

PYTHON    ?= python3
VENV      ?= .venv
INSTALLER ?= uv
UV_VERSION := 0.13.9

# What requirements.lock has packages for: PyTorch and others make none for Intel Macs.
FITS := import os, sys; \
	sys.exit(not (3, 11, 4) <= sys.version_info < (3, 15) or os.uname()[::4] == ("Darwin", "x86_64"))

ifneq ($(words $(VENV)),1)
$(error VENV='$(VENV)': name one folder without a space in its name, such as .venv; make would see two)
endif
BIN  := $(VENV)/bin
ENV  := $(VENV)/.stlib-installed
SITE := build/_build/html
PORT ?= 8000
# Draws the pages in `make browser` and `make pdf`. Empty: the one that playwright downloads.
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name) 2>/dev/null)))

# The whole study: which grid of workflow/grid.toml, where (local or slurm), on what, how far.
PROFILE ?= local
GRID    ?= paper
DEVICE  ?= $(if $(filter slurm,$(PROFILE)),cuda,cpu)
TARGET  ?= all
CONFIG  ?= # further settings of workflow/config.yaml, e.g. precision=bf16 methods=stpm
ARGS    ?= # further options of Snakemake, e.g. --dry-run

# Notebooks of the demo that run side by side; each trains on one core and takes 2 GB of memory.
JOBS := 2

# What the demo runs. The long way is teacher_epochs, then compare; the others run beside it.
DEMO := $(foreach n,teacher_epochs ablation stpm-brick compare,build/notebooks/$(n).ipynb)

CODE  := $(shell find stlib book/study -name '*.py' -o -name '*.safetensors')
# Folders, too: they change when a file goes.
PAGES := _config.yml $(shell find book/. results/. -not -path '* *' -not -path 'book/./study*' -not -path 'results/./runs*' -not -path 'results/./own*')
DEMO_READS := $(CODE) $(wildcard results/reported/* results/records/demo/*/*) requirements.lock

export UV_HTTP_TIMEOUT ?= 300
# Waiting threads that spin make a busy machine many times slower.
export OMP_WAIT_POLICY ?= passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# This environment's kernel, also when another user owns it and there is a kernel of that name in the home folder.
export JUPYTER_PREFER_ENV_PATH := 1
export CHROMIUM

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Goals come one after another; only the demo's notebooks run side by side, in a make of their own.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.PHONY: help env demo lab book serve pdf test browser chromium check plan reproduce format lock linkcheck clean

help: ## show this list
	@echo "make book and make test are all you need. Targets:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "Of reproduce: GRID=$(GRID) PROFILE=$(PROFILE) (local or slurm) DEVICE=$(DEVICE) TARGET=$(TARGET) CONFIG= ARGS="
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) INSTALLER=$(INSTALLER) (uv or pip) PORT=$(PORT)"

env: $(ENV) ## make the environment in .venv from requirements.lock

book: build/book.stamp ## environment, demo notebooks, site: everything a reader needs
	@echo "The book: $(SITE)/index.html"
	@echo "Read it with search: make serve, then open http://localhost:$(PORT)/book/intro.html"

demo: build/demo.stamp ## run the demo notebooks into build/notebooks

lab: $(ENV) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

serve: build/book.stamp ## serve the built site on this computer
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

pdf: build/book.pdf ## the book as one PDF file (needs Chromium)

test: $(ENV) ## unit tests, docstring examples and the notebooks as tests
	@rm -rf build/runs/demo/*/*.ckpt build/runs/teachers/demo # of earlier code, perhaps
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --nbval-lax

browser: build/book.stamp chromium ## the built site in Chromium: links, errors, accessibility, phone, tables, search
	$(BIN)/python -m pytest --confcutdir=tests/browser tests/browser

# The probe shows whether a downloaded one can start: it needs system libraries.
chromium: $(ENV) ## the browser of the two: one that is installed, otherwise a download of 120 MB
ifeq ($(CHROMIUM),)
	@echo "== no Chromium in PATH, none named by CHROMIUM: downloading one"
	@{ $(BIN)/playwright install $(if $(filter 0,$(shell id -u)),--with-deps) --only-shell chromium && \
		$(BIN)/playwright screenshot about:blank build/chromium.png >/dev/null; } || \
		{ echo "error: no Chromium. On Debian and Ubuntu: apt-get install chromium" >&2; exit 1; }
else
	@echo "== Chromium: $(CHROMIUM)"
	@"$(CHROMIUM)" --headless --no-sandbox --disable-gpu --dump-dom about:blank >/dev/null 2>&1 || \
		{ echo "error: $(CHROMIUM) cannot start" >&2; exit 1; }
endif

check: $(ENV) ## style, formatting, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

plan: $(ENV) ## what the study still lacks, with an estimate of GPU and CPU hours
	$(BIN)/python -m study.cli queue --estimate --grid $(GRID)

reproduce: $(ENV) ## the whole study: every run without a record, then tables and site (PROFILE=slurm: on a cluster)
	$(BIN)/snakemake --workflow-profile workflow/profiles/$(PROFILE) \
		--config grid=$(GRID) device=$(DEVICE) $(CONFIG) $(ARGS) -- $(TARGET)

format: $(ENV) ## repair style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(ENV) ## renew requirements.lock from pyproject.toml (UPGRADE=--upgrade takes newer versions)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.4 --all-extras --no-emit-index-url --generate-hashes \
		--custom-compile-command "make lock" $(UPGRADE) pyproject.toml --output-file requirements.lock

linkcheck: build/demo.stamp ## ask every site that the book links to
	$(BIN)/jupyter-book build . --toc book/_toc.yml --path-output build --builder linkcheck

clean: ## remove what was built, keep the environment
	rm -rf build

ifneq ($(shell test -x $(BIN)/python && echo there),there)
.PHONY: $(ENV) # its Python is gone: an upgrade of the system takes it away
endif
$(ENV): requirements.lock pyproject.toml
	@test -x $(BIN)/python || { rm -f $(BIN)/python*; $(PYTHON) -c '$(FITS)'; } || \
		{ echo "error: Python 3.11.4 to 3.14 is needed, on a Mac one for Apple silicon, but '$(PYTHON)' is not." \
			"Name one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv "$(VENV)" || \
		{ rm -f "$(BIN)/python"; echo "error: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c '$(FITS)' || { echo "error: '$(VENV)' is of another Python than 3.11.4 to 3.14: delete it" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo "== environment in $(VENV): about 3 GB to download, 6 GB on disk"
# Compiled, as pip does: otherwise every kernel compiles torch again where PYTHONDONTWRITEBYTECODE is set.
ifeq ($(INSTALLER),uv)
	@{ $(BIN)/python -m pip install --quiet uv==$(UV_VERSION) && \
		$(BIN)/uv pip install --compile-bytecode --require-hashes --python $(BIN)/python --requirement requirements.lock; } || \
		{ echo "== uv could not install; going on with pip (slower; INSTALLER=pip starts here)"; \
		$(BIN)/python -m pip install --require-hashes --requirement requirements.lock; }
else
	$(BIN)/python -m pip install --require-hashes --requirement requirements.lock
endif
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

build/demo.stamp: $(wildcard notebooks/*.ipynb) $(DEMO_READS) | $(ENV)
	@$(MAKE) --no-print-directory --jobs=$(JOBS) SIDE_BY_SIDE=1 $(DEMO)
	@touch $@

# What earlier code left. Checkpoints of a build that was stopped stay: it goes on there.
build/tmp/fresh: $(DEMO_READS) | $(ENV)
	@mkdir -p build/notebooks build/tmp
	@rm -rf build/records/demo build/runs/demo/*/*.ckpt build/runs/teachers/demo
	@touch $@

# The record, written by the notebook's last cell, is the proof of success: papermill's exit code alone is not.
# A run that failed or was killed leaves its unfinished notebook in build/tmp, never in build/notebooks.
RECORD := build/records/demo/stpm/brick-s0.json
build/notebooks/stpm-brick.ipynb: notebooks/run.ipynb build/tmp/fresh
	@echo "== notebook stpm on brick"
	@rm -f $(RECORD) build/tmp/$(@F)
	$(BIN)/papermill $< build/tmp/$(@F) --request-save-on-cell-execute \
		-p method stpm -p category brick -p seed 0 -p profile demo
	@test -s $(RECORD) || { echo "error: no record $(RECORD); see build/tmp/$(@F)" >&2; exit 1; }
	@mv build/tmp/$(@F) $@

# Kernels that start at the same moment now and then take the same port.
WAIT.ablation := sleep 5
# It reads ET-STPM's record, which teacher_epochs has just made, and makes the others anew.
GIVEN.compare := -p records build/records -p run_missing True
AGAIN.compare := build/records/demo/stpm/washer-* build/records/demo/*seg/washer-*
build/notebooks/compare.ipynb: build/notebooks/teacher_epochs.ipynb

# As they stand; every run in them leaves its own record.
$(filter-out %/stpm-brick.ipynb,$(DEMO)): build/notebooks/%.ipynb: notebooks/%.ipynb build/tmp/fresh
	@echo "== notebook $*"
	@rm -rf build/tmp/$*.ipynb $(AGAIN.$*)
	@$(WAIT.$*)
	$(BIN)/papermill $< build/tmp/$*.ipynb --request-save-on-cell-execute $(GIVEN.$*)
	@mv build/tmp/$*.ipynb $@

build/book.stamp: $(PAGES) $(CODE) build/demo.stamp requirements.lock | $(ENV)
	@echo "== site"
	$(BIN)/jupyter-book build . --toc book/_toc.yml --path-output build -W -n --keep-going --all
	@touch $@

build/book.pdf: build/book.stamp workflow/print_book.py | chromium
	$(BIN)/python workflow/print_book.py $(SITE) $@
