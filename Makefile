# Two commands do everything from a fresh clone: `make demo` and `make test`.
#
# Which torch goes into .venv, and which Python .venv is made with; where packages come from is up to pip's settings.
TORCH ?= torch==2.13.0
PYTHON ?= python3

BIN := .venv/bin
ARGS ?=
# A process for each core; conftest.py shares torch's threads out among them.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

.PHONY: help demo test lint format bench peers build gpu clean venv

help:
	@echo 'make demo    set up .venv and run the demonstration: claims, a table, pictures and a page in out/demo'
	@echo 'make test    set up .venv and run the tests                       (ARGS="--slow -k pgd")'
	@echo 'make bench   set up .venv with the libraries compared with, and run the benchmarks'
	@echo 'make lint    check style and types; make format repairs what can be repaired'
	@echo 'make build   build in place for $$(PYTHON), an environment of your own with torch'
	@echo 'make gpu     on a machine with a GPU, without network: build in place, test, sanitize, benchmark with $$(PYTHON)'
	@echo 'make clean   remove what was built; .venv stays'
	@echo
	@echo 'TORCH=$(TORCH)  PYTHON=$(PYTHON)'

venv:
	@scripts/setup_venv.sh '$(PYTHON)' '$(TORCH)' test,experiments
	@$(BIN)/python -m _build

demo: venv
	$(BIN)/benign demo $(ARGS)

test: venv
	$(PYTEST) $(ARGS)

peers: venv
	@scripts/install_peers.sh '$(PYTHON)' '$(TORCH)'

bench: peers
	$(BIN)/benign bench $(ARGS)

lint format: venv
	@scripts/setup_venv.sh '$(PYTHON)' '$(TORCH)' dev
	@scripts/$@.sh $(BIN)

build:
	$(PYTHON) -m _build

gpu:
	@scripts/gpu.sh '$(PYTHON)'

clean:
	rm -rf build dist out benign_kernels.egg-info benign_kernels/*.so
