# `make quickstart` trains and evaluates on real data; `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart

.PHONY: quickstart test lint clean

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

quickstart: $(VENV)/installed-emoji
	$(BIN)/mmcontrast data build emoji_views
	-$(BIN)/mmcontrast data build emoji_noto
	$(BIN)/mmcontrast train --config configs/quickstart.py --workdir $(RUN)
	$(BIN)/mmcontrast evaluate --workdir $(RUN)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --durations=10

lint: $(VENV)/installed-test
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .cache build *.egg-info
