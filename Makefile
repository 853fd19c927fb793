# costream: `make help` lists the commands, `make demo` shows it at work.
# Variables in capitals can be set: make extract-flow VIDEOS=/path/to/videos STORE=/path/to/store

VENV   ?= .venv
PYTHON ?= python3
PY     := $(VENV)/bin/python
# faiss-gpu where an NVIDIA driver is present, faiss-cpu otherwise; they own the same module, so never both.
FAISS  := $(if $(wildcard /proc/driver/nvidia/version),gpu,cpu)
OTHER_FAISS := $(if $(filter gpu,$(FAISS)),faiss-cpu,faiss-gpu)
STAMP  := $(VENV)/.installed-$(FAISS)

DATASET ?= folder
# How its official lists are read; empty leaves it to data_manifests/.
SPLIT   ?=
LISTS   ?=
CLASSES ?=
from_lists = $(if $(SPLIT),--split $(SPLIT)) $(if $(LISTS),--lists "$(LISTS)") $(if $(CLASSES),--classes "$(CLASSES)")
FLOW    ?= tvl1
VIEWS   ?=
METHOD  ?= infonce
RECIPE  ?= small
SEED    ?=
ARGS    ?=

# Spinning OpenMP threads make small torch loops ten times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUNBUFFERED = 1

# Two test processes (each takes up to 1.5 GB), files whole: their fixtures are made once.
side_by_side = -n 2 --dist loadfile

need = $(if $($(1)),,$(error $(1)= is missing; for example: make $@ $(2)))

.DEFAULT_GOAL := help
.PHONY: help setup repair demo test test-slow check format bench manifest extract-flow bring annotate status verify preview preview-clips export pretrain evaluate compare bench-methods

help: ## List the commands
	@echo "costream: videos -> store of frames and optical flow -> self-supervised pre-training -> evaluation"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Every command's own options: $(PY) -m pipeline|train|eval COMMAND --help; pass them with ARGS='--option value'"

setup: $(STAMP) ## Make the virtual environment and install what is pinned (a second when nothing changed)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "costream needs Python 3.11 or newer; this is %s. Set PYTHON=" % sys.version.split()[0])'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip uninstall --quiet --yes $(OTHER_FAISS)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$(FAISS),dev]'
	@# ptlflow brings opencv-python, which owns the same folder as contrib: contrib goes in last.
	$(PY) -m pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(PY) -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$$(sed -n 's/.*"\(opencv-contrib-python==[^"]*\)".*/\1/p' pyproject.toml)"
	$(PY) -c 'from pipeline import environment as e; e.require_optflow(); e.require_one_faiss()'
	@rm -f $(VENV)/.installed-*
	@touch $@

repair: ## Put mixed-up packages right (OpenCV, faiss) by installing again
	rm -f $(VENV)/.installed-*
	$(MAKE) setup

demo: setup ## Synthetic videos -> store -> pre-training -> report, on a CPU in minutes: runs/demo/report.html
	$(PY) -m pipeline synthetic --out data/synthetic/videos
	@# DIS flow keeps the demo short; real work takes TV-L1 (the default of extract-flow). These videos have full chroma.
	$(PY) -m pipeline extract --videos data/synthetic/videos --store data/synthetic/store --dataset synthetic \
	    --flow.estimator dis --flow.short_side 64 --rgb.short_side 64 --rgb.chroma 4:4:4
	$(PY) -m train pretrain --method coclr --recipe demo --store data/synthetic/store --run runs/demo $(if $(SEED),--seed $(SEED))
	$(PY) -m eval evaluate --run runs/demo --store data/synthetic/store --protocols '[clean]'

test: setup ## Run the tests (without the slow ones)
	$(PY) -m pytest -q -m "not slow" $(side_by_side) $(ARGS)

test-slow: setup ## Run the slow tests
	$(PY) -m pytest -q -m slow $(side_by_side) $(ARGS)

check: setup ## Format, lint and types, as CI checks them
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: setup ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: setup ## Measure against the limits: extraction, store, flow, reader, memory, training step (ratios; JSON in runs/bench)
	mkdir -p runs/bench
	$(PY) -m tests.benchmarks.extraction --json runs/bench/extraction.json
	$(PY) -m tests.benchmarks.store --json runs/bench/store.json
	$(PY) -m tests.benchmarks.flow --json runs/bench/flow.json
	$(PY) -m tests.benchmarks.reader --json runs/bench/reader.json
	$(PY) -m tests.benchmarks.memory --json runs/bench/memory.json
	$(PY) -m tests.benchmarks.training --json runs/bench/training.json
	test ! -e /proc/driver/nvidia/version || $(PY) -m tests.benchmarks.flow_gpu --json runs/bench/flow_gpu.json

bench-methods: setup ## What each method learns at an equal budget, three seeds, hours on two cores [STORE= OUT=runs/bench/methods]
	$(PY) -m tests.benchmarks.methods $(if $(STORE),--store "$(STORE)") --out "$(or $(OUT),runs/bench/methods)" $(ARGS)

manifest: setup ## List a data set: VIDEOS= (or FRAMES=) OUT= [DATASET=folder SPLIT= LISTS= CLASSES=]
	$(if $(FRAMES),,$(call need,VIDEOS,VIDEOS=/path/to/videos OUT=manifest.csv))$(call need,OUT,VIDEOS=/path/to/videos OUT=manifest.csv)
	$(PY) -m pipeline manifest $(if $(FRAMES),--frames "$(FRAMES)",--videos "$(VIDEOS)") --out "$(OUT)" --dataset "$(DATASET)" $(from_lists) $(ARGS)

extract-flow: setup ## Videos into a store of RGB and flow: VIDEOS= STORE= [DATASET=folder SPLIT= LISTS= MANIFEST= VIEWS= FLOW=tvl1 WORKERS= SCHEDULER=]
	$(call need,VIDEOS,VIDEOS=/path/to/videos STORE=/path/to/store)$(call need,STORE,VIDEOS=/path/to/videos STORE=/path/to/store)
	$(PY) -m pipeline extract --videos "$(VIDEOS)" --store "$(STORE)" --dataset "$(DATASET)" $(if $(VIEWS),--views "$(VIEWS)") --flow.estimator "$(FLOW)" \
	    $(from_lists) $(if $(MANIFEST),--manifest "$(MANIFEST)") $(if $(WORKERS),--workers $(WORKERS)) \
	    $(if $(SCHEDULER),--scheduler "$(SCHEDULER)") $(ARGS)

bring: setup ## Frames and flow that others extracted, LMDBs or folders of JPEGs, into a store: FRAMES= STORE= [FLOWS= DATASET=folder SPLIT= LISTS= MANIFEST= WORKERS=]
	$(call need,FRAMES,FRAMES=/path/to/frames FLOWS=/path/to/flow STORE=/path/to/store)$(call need,STORE,FRAMES=/path/to/frames FLOWS=/path/to/flow STORE=/path/to/store)
	$(PY) -m pipeline bring --frames "$(FRAMES)" --store "$(STORE)" $(if $(FLOWS),--flow "$(FLOWS)") \
	    --dataset "$(DATASET)" $(from_lists) $(if $(MANIFEST),--manifest "$(MANIFEST)") $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

annotate: setup ## Labels and splits of a manifest for a store, in seconds, no video is touched: STORE= [MANIFEST= NAME=extraction TEST_SHARE= SEED=]
	$(call need,STORE,STORE=/path/to/store MANIFEST=list.csv)
	$(PY) -m pipeline annotate --store "$(STORE)" $(if $(MANIFEST),--manifest "$(MANIFEST)") $(if $(NAME),--name "$(NAME)") \
	    $(if $(TEST_SHARE),--test_share $(TEST_SHARE)) $(if $(SEED),--seed $(SEED)) $(ARGS)

status: setup ## What is in a store: STORE=
	$(call need,STORE,STORE=/path/to/store)
	$(PY) -m pipeline status --store "$(STORE)" $(ARGS)

verify: setup ## Check every byte of a store: STORE=
	$(call need,STORE,STORE=/path/to/store)
	$(PY) -m pipeline verify --store "$(STORE)" $(ARGS)

preview: setup ## Contact sheets of a store as PNG: STORE= [OUT=preview]
	$(call need,STORE,STORE=/path/to/store)
	$(PY) -m pipeline preview --store "$(STORE)" --out "$(or $(OUT),preview)" $(ARGS)

preview-clips: setup ## What the network will see, as film strips of an augmented batch (HTML): STORE= [METHOD=infonce RECIPE=small SEED= OUT=preview.html]
	$(call need,STORE,STORE=/path/to/store)
	$(PY) -m train preview --method "$(METHOD)" --recipe "$(RECIPE)" --store "$(STORE)" --out "$(or $(OUT),preview.html)" \
	    $(if $(SEED),--seed $(SEED)) $(ARGS)

export: setup ## One stored video for other tools, as .mp4, .npy or a folder of JPEGs: STORE= VIDEO= OUT= [VIEW=rgb]
	$(call need,STORE,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)$(call need,VIDEO,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)$(call need,OUT,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)
	$(PY) -m pipeline export "$(STORE)" "$(VIDEO)" --out "$(OUT)" $(if $(VIEW),--view "$(VIEW)") $(ARGS)

pretrain: setup ## Pre-train, or continue where it stopped: STORE= RUN= [METHOD=infonce RECIPE=small SEED=]
	$(call need,STORE,STORE=/path/to/store RUN=runs/mine)$(call need,RUN,STORE=/path/to/store RUN=runs/mine)
	$(PY) -m train pretrain --method "$(METHOD)" --recipe "$(RECIPE)" --store "$(STORE)" --run "$(RUN)" \
	    $(if $(SEED),--seed $(SEED)) $(ARGS)

evaluate: setup ## Retrieval, probe and report of a run: RUN= STORE=
	$(call need,RUN,RUN=runs/mine STORE=/path/to/store)$(call need,STORE,RUN=runs/mine STORE=/path/to/store)
	$(PY) -m eval evaluate --run "$(RUN)" --store "$(STORE)" $(ARGS)

compare: setup ## Evaluated runs side by side, seeds as mean and spread: RUNS="runs/a runs/b" [OUT=comparison.html]
	$(call need,RUNS,RUNS="runs/a-0 runs/a-1 runs/b-0")
	$(PY) -m eval compare $(foreach run,$(RUNS),--runs+ "$(run)") --out "$(or $(OUT),comparison.html)" $(ARGS)
