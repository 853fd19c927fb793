# costream: `make help` lists the commands, `make demo` shows it at work.
# Variables in capitals can be set: make extract-flow VIDEOS=/path/to/videos STORE=/path/to/store

VENV    ?= .venv
PYTHON  ?= python3
DATASET ?= folder
METHOD  ?= infonce
OF_DEMO := $(filter-out file,$(origin METHOD))# not empty where METHOD is given, which the demo asks
RECIPE  ?= small

# What a variable holds is data: it is never expanded, neither by make nor by a shell, and reaches commands as the
# environment's "$$NAME" alone.
override DATA := ARGS BATCH CLASSES DATASET DEVICES EPOCHS FLOW FLOWS FRAMES LISTS MANIFEST METHOD MORE_STEPS NAME OUT PART PORT PYTHON QUERY \
    RECIPE REFERENCES RUN RUNS SCHEDULER SEED SET SHOW SPLIT STEPS STORE STRICT TEST_SHARE VENV VIDEO VIDEOS VIEW VIEWS \
    WHEELS WORKERS
override literal = $(eval override $(1) := $$(value $(1)))
$(foreach name,$(DATA),$(call literal,$(name)))
export $(DATA)

# faiss-gpu where an NVIDIA driver is present, faiss-cpu otherwise; they own the same module, so never both.
override FAISS := $(if $(wildcard /proc/driver/nvidia/version),gpu,cpu)
override OTHER_FAISS := $(if $(filter gpu,$(FAISS)),faiss-cpu,faiss-gpu)
$(if $(or $(findstring :,$(VENV)),$(findstring %,$(VENV)),$(word 2,$(VENV))),$(error VENV= cannot hold a blank, a colon or %))
override STAMP := $(VENV)/.installed-$(FAISS)
override PY := "$$VENV/bin/python"

# Runs a module with the words of ARGS behind the options, as a shell would split them, but nothing in them is run.
override define words
import json, os, shlex, signal, subprocess, sys

def split(name):
    try:
        return shlex.split(os.environ[name])
    except ValueError as error:
        sys.exit(f"{name}= cannot be split into words: {error}\n  to do: close every quotation mark")

given = sys.argv[1:]
place = given.index("--") if "--" in given else len(given)
given[place:place] = split("ARGS")
if given[:2] in (["eval", "compare"], ["eval", "report"], ["eval", "tables"]) and os.environ.get("RUNS"):
    given.append("--runs=" + json.dumps(split("RUNS")))
if given[0] == "train":
    given += [f"--set={change}" for change in split("SET")]
if given[:2] == ["pipeline", "remove"]:
    given.append("--videos=" + json.dumps([os.environ["VIDEO"]]))
command = [sys.executable, "-m", *given]
print(shlex.join(command), file=sys.stderr)
quarantines = given[:2] in (["pipeline", "extract"], ["pipeline", "bring"], ["eval", "features"])
if not quarantines or os.environ.get("STRICT"):
    os.execv(sys.executable, command)
running = []
signal.signal(signal.SIGTERM, lambda number, _: [child.send_signal(number) for child in running])
signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command, too
running.append(subprocess.Popen(command))
code = running[0].wait()
if code == 3:
    print("warning: some videos are in quarantine, and all others are done; make STRICT=1 ends with an error", file=sys.stderr)
sys.exit(0 if code == 3 else code if code >= 0 else 128 - code)
endef
override export WITH_ARGS := $(value words)
# These need no set-up of ours: they run with the machine's own Python where there is no virtual environment.
override GPU_PY := @$(if $(wildcard $(VENV)/bin/python),$(PY),"$$PYTHON")
override RUN_MODULE := @$(PY) -c "$$WITH_ARGS"

# The option $(1) with the variable $(2), where that is set.
override given = $(if $($(2)),--$(1)="$$$(2)")
override of_training = $(call given,steps,STEPS) $(call given,epochs,EPOCHS) $(call given,batch,BATCH) $(call given,devices,DEVICES) $(call given,more_steps,MORE_STEPS)
override from_lists = $(call given,split,SPLIT) $(call given,lists,LISTS) $(call given,classes,CLASSES)

# Spinning OpenMP threads make small torch loops ten times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONUNBUFFERED = 1

# Two test processes (each takes up to 1.5 GB), files whole: their fixtures are made once.
override side_by_side := -n 2 --dist loadfile

override need = $(if $($(1)),,$(error $(1)= is missing; for example: make $@ $(2)))

.DEFAULT_GOAL := help
.PHONY: help setup repair demo test test-slow check format docs bench gpu-references gpu-check manifest extract-flow bring annotate status verify remove preview preview-clips export pretrain tensorboard finetune probe evaluate report compare features search duplicates tables bench-methods

help: ## List the commands
	@echo "costream: videos -> store of frames and optical flow -> self-supervised pre-training -> evaluation"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Every command's own options: $$VENV/bin/python -m pipeline|train|eval COMMAND --help; pass them with ARGS='--option value'"

setup: $(STAMP) ## Make the virtual environment and install what is pinned (a second when nothing changed)

$(STAMP): pyproject.toml pipeline/people/requirements.txt
	@"$$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "costream needs Python 3.11 to 3.13; this is %s. Set PYTHON=" % sys.version.split()[0])'
	test -x $(PY) || "$$PYTHON" -m venv "$$VENV"
	$(PY) -m pip uninstall --quiet --yes $(OTHER_FAISS)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --editable '.[$(FAISS),dev]'
	@# ptlflow brings opencv-python, which owns the same folder as contrib: contrib goes in last.
	$(PY) -m pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(PY) -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$$(sed -n 's/.*"\(opencv-contrib-python==[^"]*\)".*/\1/p' pyproject.toml)"
	@# MediaPipe asks for another NumPy and OpenCV: only its models are used. Where there is no wheel of it, all else works.
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --requirement pipeline/people/requirements.txt \
	    || echo "segmentation and pose cannot be estimated here; masks and key points of files can be used"
	$(PY) -c 'from pipeline import environment as e; e.require_optflow(); e.require_one_faiss()'
	@rm -f "$$VENV"/.installed-*
	@touch "$$VENV/.installed-$(FAISS)"

repair: ## Put mixed-up packages right (OpenCV, faiss) by installing again
	rm -f "$$VENV"/.installed-*
	$(MAKE) setup

demo: setup ## Synthetic videos -> store -> pre-training -> report, on a CPU in minutes: runs/demo/report.html [METHOD= for another, by its small recipe]
	$(PY) -m pipeline synthetic --out data/synthetic/videos
	@# DIS flow keeps the demo short; real work takes TV-L1 (the default of extract-flow). These videos have full chroma.
	$(PY) -m pipeline extract --videos data/synthetic/videos --store data/synthetic/store --dataset synthetic \
	    --flow.estimator dis --flow.short_side 64 --rgb.short_side 64 --rgb.chroma 4:4:4
	$(PY) -m train pretrain $(if $(OF_DEMO),--method="$$METHOD" --recipe small,--method coclr --recipe demo) \
	    --store data/synthetic/store --run="runs/demo$(if $(OF_DEMO),-$$METHOD)" $(call given,seed,SEED)
	$(PY) -m eval evaluate --run="runs/demo$(if $(OF_DEMO),-$$METHOD)" --store data/synthetic/store --protocols '[clean]'

test: setup ## Run the tests (without the slow ones)
	$(RUN_MODULE) pytest -q -m "not slow" $(side_by_side)

test-slow: setup ## Run the slow tests
	$(RUN_MODULE) pytest -q -m slow $(side_by_side)

check: setup ## Format, lint and types, as CI checks them
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: setup ## Format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: setup ## The documentation as pages, with what is made from the code: build/docs/index.html
	@$(PY) -c 'import mkdocs, mkdocstrings' 2>/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check \
	    $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	$(PY) -m mkdocs build --quiet
	@echo "wrote build/docs/index.html"

bench: setup ## Measure against the limits: extraction, store, flow, reader, memory, training step (ratios; JSON in runs/bench)
	mkdir -p runs/bench
	$(PY) -m tests.benchmarks.extraction --json runs/bench/extraction.json
	$(PY) -m tests.benchmarks.store --json runs/bench/store.json
	$(PY) -m tests.benchmarks.flow --json runs/bench/flow.json
	$(PY) -m tests.benchmarks.reader --json runs/bench/reader.json
	$(PY) -m tests.benchmarks.memory --json runs/bench/memory.json
	$(PY) -m tests.benchmarks.training --json runs/bench/training.json
	test ! -e /proc/driver/nvidia/version || $(PY) -m tests.benchmarks.flow_gpu --json runs/bench/flow_gpu.json

gpu-references: ## What gpu-check compares with, made on any CPU, once: [OUT=gpu-references.zip VIDEOS=]
	$(GPU_PY) -m tests.gpu.references --out="$${OUT:-gpu-references.zip}" $(call given,videos,VIDEOS)

gpu-check: ## What a machine with a GPU says of this project, in nine minutes: [REFERENCES=gpu-references.zip OUT=runs/gpu-check PART=dali WHEELS=]
	$(GPU_PY) -m tests.gpu.check --references="$${REFERENCES:-gpu-references.zip}" --out="$${OUT:-runs/gpu-check}" \
	    $(call given,part,PART) $(call given,wheels,WHEELS)

bench-methods: setup ## What each method learns at an equal budget, three seeds, hours on two cores [STORE= OUT=runs/bench/methods]
	$(RUN_MODULE) tests.benchmarks.methods $(call given,store,STORE) --out="$${OUT:-runs/bench/methods}"

manifest: setup ## List a data set: VIDEOS= (or FRAMES=) OUT= [DATASET=folder SPLIT= LISTS= CLASSES=]
	$(if $(FRAMES),,$(call need,VIDEOS,VIDEOS=/path/to/videos OUT=manifest.csv))$(call need,OUT,VIDEOS=/path/to/videos OUT=manifest.csv)
	$(RUN_MODULE) pipeline manifest $(if $(FRAMES),--frames="$$FRAMES",--videos="$$VIDEOS") --out="$$OUT" --dataset="$$DATASET" $(from_lists)

extract-flow: setup ## Videos into a store of RGB and flow: VIDEOS= STORE= [DATASET=folder SPLIT= LISTS= MANIFEST= VIEWS= FLOW= WORKERS= SCHEDULER=]
	$(call need,VIDEOS,VIDEOS=/path/to/videos STORE=/path/to/store)$(call need,STORE,VIDEOS=/path/to/videos STORE=/path/to/store)
	$(RUN_MODULE) pipeline extract --videos="$$VIDEOS" --store="$$STORE" --dataset="$$DATASET" $(call given,views,VIEWS) $(call given,flow.estimator,FLOW) \
	    $(from_lists) $(call given,manifest,MANIFEST) $(call given,workers,WORKERS) \
	    $(call given,scheduler,SCHEDULER)

bring: setup ## Frames and flow that others extracted, LMDBs or folders of JPEGs, into a store: FRAMES= STORE= [FLOWS= DATASET=folder SPLIT= LISTS= MANIFEST= WORKERS=]
	$(call need,FRAMES,FRAMES=/path/to/frames FLOWS=/path/to/flow STORE=/path/to/store)$(call need,STORE,FRAMES=/path/to/frames FLOWS=/path/to/flow STORE=/path/to/store)
	$(RUN_MODULE) pipeline bring --frames="$$FRAMES" --store="$$STORE" $(call given,flow,FLOWS) --dataset="$$DATASET" $(from_lists) \
	    $(call given,manifest,MANIFEST) $(call given,workers,WORKERS)

annotate: setup ## Labels and splits of a manifest for a store, in seconds, no video is touched: STORE= [MANIFEST= NAME=extraction TEST_SHARE= SEED=]
	$(call need,STORE,STORE=/path/to/store MANIFEST=list.csv)
	$(RUN_MODULE) pipeline annotate --store="$$STORE" $(call given,manifest,MANIFEST) $(call given,name,NAME) \
	    $(call given,test_share,TEST_SHARE) $(call given,seed,SEED)

status: setup ## What is in a store: STORE= [SHOW=classes, splits, videos or quarantine]
	$(call need,STORE,STORE=/path/to/store)
	$(RUN_MODULE) pipeline status --store="$$STORE" $(call given,show,SHOW)

verify: setup ## Check every byte of a store or of a run: STORE= or RUN=
	$(if $(RUN),,$(call need,STORE,STORE=/path/to/store or RUN=runs/mine))
	$(if $(STORE),$(RUN_MODULE) pipeline verify --store="$$STORE")
	$(if $(RUN),$(RUN_MODULE) train verify --run="$$RUN")

remove: setup ## One video out of a store or its quarantine: STORE= VIDEO=
	$(call need,STORE,STORE=/path/to/store VIDEO=class/name)$(call need,VIDEO,STORE=/path/to/store VIDEO=class/name)
	$(RUN_MODULE) pipeline remove --store="$$STORE"

preview: setup ## Contact sheets of a store as PNG: STORE= [OUT=preview]
	$(call need,STORE,STORE=/path/to/store)
	$(RUN_MODULE) pipeline preview --store="$$STORE" --out="$${OUT:-preview}"

preview-clips: setup ## What the network will see, as film strips of an augmented batch (HTML): STORE= [METHOD=infonce RECIPE=small SEED= SET= OUT=preview.html]
	$(call need,STORE,STORE=/path/to/store)
	$(RUN_MODULE) train preview --method="$$METHOD" --recipe="$$RECIPE" --store="$$STORE" --out="$${OUT:-preview.html}" \
	    $(call given,seed,SEED)

export: setup ## One stored video for other tools, as .mp4, .npy or a folder of JPEGs: STORE= VIDEO= OUT= [VIEW=rgb]
	$(call need,STORE,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)$(call need,VIDEO,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)$(call need,OUT,STORE=/path/to/store VIDEO=class/name OUT=name.mp4)
	$(RUN_MODULE) pipeline export --out="$$OUT" $(call given,view,VIEW) -- "$$STORE" "$$VIDEO"

pretrain: setup ## Pre-train, or continue where it stopped: STORE= RUN= [METHOD=infonce RECIPE=small SEED= STEPS= EPOCHS= BATCH= DEVICES= MORE_STEPS= SET="key=value ..."]
	$(call need,STORE,STORE=/path/to/store RUN=runs/mine)$(call need,RUN,STORE=/path/to/store RUN=runs/mine)
	$(RUN_MODULE) train pretrain --method="$$METHOD" --recipe="$$RECIPE" --store="$$STORE" --run="$$RUN" \
	    $(call given,seed,SEED) $(of_training)

tensorboard: setup ## Curves of a run while it trains, and after: RUN= [PORT=6006]; RUN=runs shows all of a folder
	$(call need,RUN,RUN=runs/mine)
	@$(PY) -W ignore::UserWarning -m tensorboard.main --logdir "$$RUN" --port "$${PORT:-6006}"

finetune: setup ## Train a run's networks further on labels, or new ones: STORE= RUN= [RECIPE=small OUT=RUN-finetune SEED= STEPS= EPOCHS= BATCH= MORE_STEPS= SET=]; RECIPE=scratch: STORE= OUT=
	$(call need,STORE,RUN=runs/mine STORE=/path/to/store)$(if $(RUN),,$(call need,OUT,RUN=runs/mine STORE=/path/to/store))
	$(RUN_MODULE) train finetune --store="$$STORE" $(call given,run,RUN) --recipe="$$RECIPE" $(call given,out,OUT) $(call given,seed,SEED) $(of_training)

probe: setup ## A linear classifier on a run's networks, end to end as published: STORE= RUN= [RECIPE=small OUT=RUN-probe SEED= STEPS= EPOCHS= BATCH= MORE_STEPS= SET=]
	$(call need,STORE,RUN=runs/mine STORE=/path/to/store)$(call need,RUN,RUN=runs/mine STORE=/path/to/store)
	$(RUN_MODULE) train probe --store="$$STORE" --run="$$RUN" --recipe="$$RECIPE" $(call given,out,OUT) $(call given,seed,SEED) $(of_training)

evaluate: setup ## Retrieval, probe and report of a run: RUN= STORE=
	$(call need,RUN,RUN=runs/mine STORE=/path/to/store)$(call need,STORE,RUN=runs/mine STORE=/path/to/store)
	$(RUN_MODULE) eval evaluate --run="$$RUN" --store="$$STORE"

report: setup ## Write a report again: RUN= STORE=; or of several runs, what changed class by class, too: RUNS="runs/a runs/b" STORE= [OUT=comparison.html]
	$(if $(RUNS),,$(call need,RUN,RUN=runs/mine STORE=/path/to/store))$(call need,STORE,RUN=runs/mine STORE=/path/to/store)
	$(RUN_MODULE) eval report $(if $(RUNS),--out="$${OUT:-comparison.html}",--run="$$RUN") --store="$$STORE"

compare: setup ## Evaluated runs side by side, seeds as mean and spread: RUNS="runs/a runs/b" [OUT=comparison.html]
	$(call need,RUNS,RUNS="runs/a-0 runs/a-1 runs/b-0")
	$(RUN_MODULE) eval compare --out="$${OUT:-comparison.html}"

features: setup ## Features of a folder of new videos, extracted on the way: VIDEOS= RUN= OUT= [STORE= MANIFEST= WORKERS=]
	$(call need,VIDEOS,VIDEOS=/path/to/videos RUN=runs/mine OUT=features)$(call need,RUN,VIDEOS=/path/to/videos RUN=runs/mine OUT=features)$(call need,OUT,VIDEOS=/path/to/videos RUN=runs/mine OUT=features)
	$(RUN_MODULE) eval features --videos="$$VIDEOS" --run="$$RUN" --out="$$OUT" $(call given,store,STORE) $(call given,manifest,MANIFEST) \
	    $(call given,workers,WORKERS)

search: setup ## The videos of a store that are most like a video file, and a page of strips: QUERY=clip.mp4 RUN= STORE= [OUT=search.html]
	$(call need,QUERY,QUERY=clip.mp4 RUN=runs/mine STORE=/path/to/store)$(call need,RUN,QUERY=clip.mp4 RUN=runs/mine STORE=/path/to/store)$(call need,STORE,QUERY=clip.mp4 RUN=runs/mine STORE=/path/to/store)
	$(RUN_MODULE) eval search --query="$$QUERY" --run="$$RUN" --store="$$STORE" --out="$${OUT:-search.html}"

duplicates: setup ## Pairs of a store's videos that are nearly the same: RUN= STORE= [OUT=pairs.csv]
	$(call need,RUN,RUN=runs/mine STORE=/path/to/store)$(call need,STORE,RUN=runs/mine STORE=/path/to/store)
	$(RUN_MODULE) eval duplicates --run="$$RUN" --store="$$STORE" $(call given,out,OUT)

tables: setup ## Every table of the five papers: how to make each number, and what stands in its place here: [RUNS= OUT=tables.csv|.md|.tex]
	$(RUN_MODULE) eval tables $(call given,out,OUT)
