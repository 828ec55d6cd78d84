# Every command of the project; `make` alone lists them. CI calls the same ones.
PYTHON ?= python3
PRESET ?=
ARGS   ?=
ONLY   ?=
FORCE  ?=
KEEP   ?=
FORMAT ?= onnx
WEIGHTS ?=

BIN  := .venv/bin
# The command ends when its make has ended, however that happens: see notebooks/book/ending.py.
TOOL := STARTED_BY_MAKE=$$PPID exec $(BIN)/python notebooks/book/tool.py
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# glibc gives the large blocks of every training step back to the system and gets them again, page by page. If it keeps
# them, in huge pages, a step on the CPU is a quarter faster. Other C libraries do not read it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000

.DEFAULT_GOAL := help
.PHONY: help env run test portable train export lab site pdf pairs check-pairs bench gpu-check lint clean distclean browser

help:  ## this list
	@echo "AlignedReID, explained and reproduced. The first command makes the environment by itself."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-19s %s\n", $$1, $$2 }'
	@echo
	@echo "  make train PRESET=market1501_gl ARGS=\"-p seed 2\"   what ARGS changes is added to the folder's name:"
	@echo "                                                     runs/market1501_gl_seed2"
	@echo "  make pairs ONLY=06_training FORCE=1                one chapter, executed again though unchanged"
	@echo "  make pairs ONLY=06_training KEEP=ipynb             both files were edited: this one counts (or KEEP=py)"
	@echo "  make env PYTHON=python3.12                         a different Python, 3.11 or newer"

env: .venv/installed  ## the environment: .venv from requirements.txt (about 3 minutes, 6 GB)

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1): make env PYTHON=/path/to/python3.11"; \
	  exit 1; }
	@echo "Making the environment in .venv (once; about 3 minutes and 6 GB) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: env  ## chapters 00-09 on the drawn people into runs/book/, then the score table
	@$(TOOL) run

test: env browser  ## every check: style, types, unit tests, pairs, chapters cell by cell, site, site in a browser
	@$(TOOL) test

portable: env  ## do all checks pass on other processors? Chapters and tests under four arithmetic profiles (50 minutes)
	@$(TOOL) portable

train: env  ## a full run, PRESET=name [ARGS="-p name value ..."], into runs/<preset>/; asked again, it resumes
	@$(TOOL) train "$(PRESET)" $(ARGS)

export: env  ## a run's network as a file: PRESET=name, or book [FORMAT=onnx, int8 or torch] [WEIGHTS=file]
	@$(TOOL) export "$(PRESET)" "$(FORMAT)" "$(WEIGHTS)" $(ARGS)

lab: env  ## JupyterLab in notebooks/
	@cd notebooks && ../$(BIN)/jupyter lab

site: env  ## the book as a web site, into site/
	@$(TOOL) site
	@echo "site/index.html"

pdf: site browser  ## the book as one PDF, without the reference, into build/alignedreid.pdf
	@$(TOOL) pdf

pairs: env  ## each .ipynb written from its .py, executed where code, library or data changed [ONLY=name] [FORCE=1]
	@$(TOOL) pairs $(ONLY) $(if $(FORCE),--force) $(if $(KEEP),--keep $(KEEP))

check-pairs: env  ## what is wrong with the committed pairs
	@$(TOOL) check-pairs

bench: env  ## the benchmarks, one after another: each a ratio to a floor measured in the same process
	@set -e; export BENCH=runs/bench.json; rm -f $$BENCH; \
	  for script in tests/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done; \
	  echo "== $$BENCH (chapter 11 shows it)"
	@$(TOOL) gpu-column

gpu-check: env  ## what only a GPU can show, in 5 minutes: equal to the CPU? how fast? Into notebooks/results/
	@$(TOOL) gpu-check

lint: env  ## ruff, mypy and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

clean:  ## removes runs/book, data/synthetic, site, build and caches; other runs, data/raw and .venv stay
	rm -rf runs/book data/synthetic site build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

distclean: clean  ## clean, and removes .venv too
	rm -rf .venv *.egg-info

# The browser in which `make test` looks at the site; CHROMIUM=/path/to/chrome names a different one.
browser:
	@[ -n "$$CHROMIUM" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  command -v google-chrome >/dev/null || { \
	  command -v apt-get >/dev/null || { echo "make test needs Chromium: install it, or name it: CHROMIUM=/path make test"; exit 1; }; \
	  echo "Installing Chromium (for the check of the site) ..."; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null; }
