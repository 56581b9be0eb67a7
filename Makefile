# `make demo` and `make test` set up everything they need in .venv and then do the job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench parity packs nano nano-scores clean

demo: $(VENV)/.demo
	$(BIN)/monoglot demo --out out/demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/monoglot bench --model nano
	$(BIN)/monoglot bench --model base --part compare

parity: $(VENV)/.dev
	$(BIN)/python benchmarks/parity.py

packs: $(VENV)/.packs
	$(BIN)/monoglot data build emoji clips sounds prompts spoken docstrings readings --out packs

nano: packs
	$(BIN)/monoglot train recipes/nano_1_names.yaml --out runs/nano_1
	$(BIN)/monoglot train recipes/nano_2_all.yaml --out runs/nano_2
	$(BIN)/monoglot train recipes/nano_3_sentences.yaml --out runs/nano_3
	$(BIN)/monoglot train recipes/nano_4_places.yaml --out runs/nano_4
	$(BIN)/monoglot train recipes/nano_5_sure.yaml --out runs/nano

nano-scores: packs
	$(BIN)/monoglot data build lineart stamps gcompris photos speakers --out packs
	$(BIN)/python -m benchmarks.nano
	$(BIN)/python -m benchmarks.nano --limit 0 --only emoji/names_en emoji/names_ja --as whole

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[report]"
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[report,bench]"
	@touch $@

$(VENV)/.packs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[report,packs]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.demo $(VENV)/.packs

clean:
	rm -rf $(VENV) out build dist
