# Everything runs in .venv. Tools are called as `python -m`: a console script's first line breaks when the path has spaces.
PYTHON ?= python3
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# What a committed notebook loses besides outputs and execution counts; it keeps kernelspec, language name and cell tags.
STRIP := --keep-id --drop-tagged-cells injected-parameters --extra-keys "metadata.papermill cell.metadata.papermill \
	metadata.language_info.version metadata.language_info.codemirror_mode metadata.language_info.file_extension \
	metadata.language_info.mimetype metadata.language_info.nbconvert_exporter metadata.language_info.pygments_lexer"

.PHONY: help setup wheel demo test test-rest test-all lab docs pictures lint style bench bench-train bench-steps bench-recipes bench-few-steps bench-own-images bench-fidelity bench-base-precision bench-ranks bench-true-size bench-plans bench-prepare bench-machines bench-soak bench-lab bench-gpu bench-runs bench-kills fuzz clean

help:
	@echo "make setup   create .venv with the tested versions (about a minute)"
	@echo "make demo    run the demo recipe: prepare, train, compare"
	@echo "make test    run the quick tests (4 minutes on two cores): the maths, the contracts, one tiny run"
	@echo "make test-rest  run the slow tests and those in a browser, which make test leaves out"
	@echo "make test-all  run every test"
	@echo "make style   print how the library reads, in figures"
	@echo "make lab     open JupyterLab on copies of the notebooks in outputs/lab (LAB_FLAGS=--no-browser adds a flag)"
	@echo "make wheel   build dist/onepass-*.whl, which needs no checkout: pip install it, then onepass init my-project"
	@echo "make docs    write the reference pages, and build the documentation's site in build/site"
	@echo "make pictures  run demo and frontier, and take the pictures of README and docs from them"
	@echo "make lint    check style, format, and that notebooks carry no outputs"
	@echo "make bench   run the demo and demo-long from nothing and write benchmarks/results"
	@echo "make bench-train   measure training against the reference method, and write benchmarks/results"
	@echo "make bench-steps   measure a step with and without DeepSpeed's engine, and compiled, and write benchmarks/results"
	@echo "make bench-recipes   run the recipes of the other objectives from nothing, and write benchmarks/results"
	@echo "make bench-few-steps   measure few-step distillation, and write benchmarks/results"
	@echo "make bench-own-images   fine-tune on 20 icons of one theme, and write benchmarks/results"
	@echo "make bench-fidelity   train guidance adapters in different ways for the same time, and write benchmarks/results"
	@echo "make bench-base-precision   train on the frozen base in fewer bits, and write benchmarks/results"
	@echo "make bench-ranks   train adapters of every rank on every preset of layers, and write benchmarks/results"
	@echo "make bench-true-size   take a training at SD 2.1's size, and write benchmarks/results"
	@echo "make bench-plans   plan the memory of LoRA trainings of SDXL and SD 3.5 at their size"
	@echo "make bench-prepare   measure preparation, with up to 100,000 images, and write benchmarks/results"
	@echo "make bench-machines   measure processes, ZeRO stages and checkpoints, and write benchmarks/results"
	@echo "make bench-soak   train 2,000 steps, killed many times, and write benchmarks/results"
	@echo "make bench-lab   run the comparison headlessly, hold it against a bare pipeline, and write benchmarks/results"
	@echo "make bench-gpu   on a machine with GPUs: measure training at SD 2.1's size, and write benchmarks/results"
	@echo "make bench-runs   measure what onepass run costs over bare papermill, and 2,000 runs listed, and write benchmarks/results"
	@echo "make bench-kills   kill a run at 20 random moments and resume it, at ZeRO 0 and 2, and write benchmarks/results"
	@echo "make fuzz   read damaged and hostile files: KIND=tables, archives, records, adapters or bases, CASES=20000"
	@echo "onepass --help   the command: run, sweep, list, show, diff, doctor and more"
	@echo "make clean   remove runs, caches and build products (outputs/base, outputs/flow-base and outputs/lab stay)"
	@echo "PYTHON=...   the Python 3.11 to 3.13 that .venv is made from (now: $(PYTHON))"

setup: .venv/.ready

# Rebuilt from nothing when a dependency file changes, so that nothing stale stays in it.
.venv/.ready: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python " + sys.version.split()[0] + " given, 3.11 to 3.13 needed: make PYTHON=python3.11")'
	@echo "setup: new .venv"
	@rm -rf .venv
	@"$(PYTHON)" -m venv .venv
	@.ci/install $(PY)
	@touch .venv/.ready
	@echo "setup: done"

demo: setup
	@echo "demo: onepass run demo"
	@$(PY) -m nbs_lib run demo

PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
QUICK := quick or not (slow or browser)

test: setup
	@echo "test: pytest without the slow tests, two processes of one thread each"
	@$(PYTEST) -m "$(QUICK)"

test-rest: setup
	@echo "test-rest: pytest of the tests that make test leaves out, two processes of one thread each"
	@$(PYTEST) --durations=20 -m "not ($(QUICK))"

test-all: setup
	@echo "test-all: pytest, two processes of one thread each"
	@$(PYTEST) --durations=20

lab: setup
	@echo "lab: JupyterLab on 127.0.0.1"
	@$(PY) -m nbs_lib lab -- $(LAB_FLAGS)

# setuptools would put files of an earlier build, which are no longer in the checkout, into the wheel.
wheel: setup
	@echo "wheel: dist"
	@rm -rf build/lib build/bdist.*
	@$(PY) -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@ls dist/*.whl

# The site's packages are an extra, so that setup does not wait for them.
.venv/.docs: .venv/.ready
	@echo "docs: MkDocs"
	@$(PY) -m pip install -qq -c constraints.txt -e '.[docs]'
	@touch .venv/.docs

docs: .venv/.docs
	@echo "docs: the reference pages"
	@$(PY) -m nbs_lib.reference
	@echo "docs: build/site"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict --clean

pictures: setup
	@echo "pictures: demo, frontier, the report"
	@$(PY) benchmarks/pictures.py

lint: setup
	@echo "lint: ruff check"
	@$(PY) -m ruff check
	@echo "lint: ruff format --check"
	@$(PY) -m ruff format --check
	@echo "lint: lint-imports"
	@.venv/bin/lint-imports --no-cache > /dev/null || .venv/bin/lint-imports --no-cache
	@echo "lint: nbstripout --verify"
	@for notebook in $(wildcard notebooks/*.ipynb); do \
		$(PY) -m nbstripout --verify $(STRIP) "$$notebook" > /dev/null || \
		{ echo "$$notebook carries outputs or run metadata; to strip it:"; \
		  echo '$(PY) -m nbstripout $(STRIP)' "$$notebook"; exit 1; }; \
	done

style:
	@python3 tests/style.py

bench: setup
	@echo "bench: demo, demo-long"
	@$(PY) benchmarks/main_job.py

bench-train: setup
	@echo "bench-train: reference, floor, live, cached"
	@$(PY) benchmarks/train.py
	@echo "bench-train: operations of a step"
	@$(PY) benchmarks/operations.py

bench-steps: setup
	@echo "bench-steps: DeepSpeed's engine off and on, compiled"
	@$(PY) benchmarks/steps.py

bench-recipes: setup
	@echo "bench-recipes: cached, trajectories, consistency, unseen"
	@$(PY) benchmarks/main_job.py cached trajectories cached+train.target_modules=feedforward consistency unseen

bench-fidelity: setup
	@echo "bench-fidelity: the loss, timesteps and states of guidance, two seeds of each"
	@$(PY) benchmarks/fidelity.py

bench-own-images: setup
	@echo "bench-own-images: the recipe own-images on 20 icons of one theme"
	@$(PY) benchmarks/own_images.py

bench-few-steps: setup
	@echo "bench-few-steps: four-steps, few-steps, consistency; adapters together; the cost of a step"
	@$(PY) benchmarks/few_steps.py

bench-base-precision: setup
	@echo "bench-base-precision: the base as it is, in int8, fp8 and nf4"
	@$(PY) benchmarks/base_precision.py

bench-ranks: setup
	@echo "bench-ranks: six ranks, three presets"
	@$(PY) benchmarks/ranks.py

bench-lab: setup
	@echo "bench-lab: 50 headless comparisons, the overhead, the frontier"
	@$(PY) benchmarks/lab.py

bench-plans: setup
	@$(PY) benchmarks/true_size_plans.py

bench-true-size: setup
	@$(PY) benchmarks/true_size.py

bench-prepare: setup
	@echo "bench-prepare: rates, a second run, memory, reading"
	@$(PY) benchmarks/prepare.py

bench-machines: setup
	@echo "bench-machines: processes, stages, checkpoints"
	@$(PY) benchmarks/machines.py

bench-soak: setup
	@echo "bench-soak: 2,000 steps, twice"
	@$(PY) benchmarks/soak.py

bench-gpu: setup
	@$(PY) benchmarks/gpu.py

bench-runs: setup
	@echo "bench-runs: onepass run against bare papermill, 200 and 2,000 runs"
	@$(PY) benchmarks/runs.py

bench-kills: setup
	@echo "bench-kills: 20 moments at ZeRO 0, 20 at ZeRO 2"
	@$(PY) benchmarks/kills.py

KIND ?= tables archives records adapters bases
CASES ?= 20000
fuzz: setup
	@for kind in $(KIND); do OMP_NUM_THREADS=1 $(PY) -W ignore -m tests.fuzz $$kind --cases $(CASES) || exit 1; done

clean:
	@echo "clean: runs, caches, build products"
	@find outputs -mindepth 1 -maxdepth 1 ! -name .gitkeep ! -name base ! -name flow-base ! -name lab -exec rm -rf {} +
	@find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m nbs_lib gc; fi
	@rm -rf .pytest_cache .ruff_cache build dist *.egg-info
