# The two commands of the README, and their neighbours. Everything is kept in .venv and .genres.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := genres genres_cli genres_page genres_dagster spark genre_assets streaming_sensors local_stack
PYTHON ?= $(shell for found in python3.13 python3.12 python3.11 python3; do \
	$$found -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$found && break; done)

# An interpreter that somebody asked for, by make PYTHON=… or in the environment: .venv is rebuilt if it is of another one.
WHICH := -c 'import sys; print(*sys.version_info[:3], sys.base_prefix)'
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
ASKED := $(shell $(PYTHON) $(WHICH) 2>/dev/null)
ifeq ($(ASKED),)
$(error genres: there is no Python at $(PYTHON): make PYTHON=/path/to/python3.11, or leave it out)
endif
ifeq ($(filter 3.11 3.12 3.13,$(word 1,$(ASKED)).$(word 2,$(ASKED))),)
$(error genres: $(PYTHON) is Python $(word 1,$(ASKED)).$(word 2,$(ASKED)): 3.11, 3.12 or 3.13 is needed)
endif
ifneq ($(ASKED),$(shell $(BIN)/python $(WHICH) 2>/dev/null))
OTHER_PYTHON := other-python
endif
endif

.PHONY: able other-python help install demo up ui down status test integration-tests unit-tests fault-tests unit test-long test-faults test-cluster nemesis soak lint docs linkcheck pictures lock clean-state
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 20

install: $(VENV)/installed ## build .venv from the hash-locked requirements
$(VENV)/installed: requirements.txt pyproject.toml $(OTHER_PYTHON)
	@if [ -z "$(PYTHON)" ]; then echo "genres: no Python 3.11, 3.12 or 3.13 found: install one, or make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "genres: $(PYTHON) has no venv: install it (apt install python3-venv)" >&2; exit 1; }
	@if [ -n "$(OTHER_PYTHON)" ]; then rm -rf $(VENV); fi
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo "compiling to bytecode, once ..."
	@# Where PYTHONDONTWRITEBYTECODE is set, every process would compile whatever it imports again.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib $(PACKAGES) >/dev/null || true
	@# Offline it says in one line what is absent; the rest is installed all the same.
	@$(BIN)/python -m genres.audio.musicnn.install || true
	@$(BIN)/python -m genres.audio.compile_kernels
	@touch $@

# Said before minutes of installing: what the environment takes, and what the start would refuse afterwards. By default the
# daemons keep their data below the checkout, and their jars in the user's own Maven repository.
VENV_MIB := 2600
STATE_MIB := 1024
able:
	@export LC_ALL=C; \
	set_for() { [ -n "$${!1}" ] || grep -qs "^ *$$1=" .env; }; \
	fail() { echo "genres: $$1" >&2; exit 1; }; \
	folder="$${GENRES_STATE_DIR:-$$PWD}"; \
	if [[ $$folder =~ [^A-Za-z0-9/._+@=~-] ]] && ! grep -qs '^ *GENRES_STATE_DIR=' .env; then \
		fail "the daemons cannot keep data in $$folder, which has other characters than letters, digits and ._+@=~-: set GENRES_STATE_DIR to a plainer path"; fi; \
	if [ -e $(VENV)/installed ]; then exit 0; fi; \
	[ -w . ] || fail "$$PWD cannot be written to, and $(VENV) is to be built there: give this user that right"; \
	jars=~/.m2/repository; while [ ! -e "$$jars" ]; do jars=$$(dirname "$$jars"); done; \
	[ -d "$$jars" -a -w "$$jars" ] || set_for GENRES_JAR_DIR || \
		fail "$$jars cannot be written to, and the daemons' jars are to be kept there (~/.m2/repository): give this user that right, or set GENRES_JAR_DIR to another folder"; \
	needed=$(VENV_MIB); set_for GENRES_STATE_DIR || needed=$$((needed + $(STATE_MIB))); \
	free=$$(df -Pk . 2>/dev/null | awk 'NR == 2 {print int($$4 / 1024)}'); \
	[ "$${free:-$$needed}" -ge $$needed ] || \
		fail "the disk of $$PWD has $$free MiB free, and $$needed MiB are needed ($(VENV_MIB) for $(VENV), the rest for the daemons' data): make room, or clone to another disk"
demo: able install ## run the whole pipeline on synthetic clips, or on GENRES_AUDIO=<folder>
	@$(BIN)/genres demo
up: able install ## start the local stack
	@$(BIN)/genres up
ui: able install ## open Dagster on the stack; Ctrl-C closes it
	@$(BIN)/genres ui
status: install ## show the stack
	@$(BIN)/genres status
down: ## stop the stack; its data stays
	@if [ -x $(BIN)/genres ]; then $(BIN)/genres down; fi

lint: install ## ruff, mypy and the import rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache --no-logo
docs: install ## build the documentation into build/docs, warnings as errors
	@$(BIN)/python -m sphinx -q -E -W --keep-going docs build/docs && echo "genres: open build/docs/index.html"
linkcheck: install ## ask for every address that the documentation links to; needs a network, so `make test` leaves it out
	@$(BIN)/python -m sphinx -q -E -b linkcheck docs build/linkcheck
pictures: install ## take the documentation's pictures from the running system (make demo, then make ui)
	@PYTHONPATH=. $(BIN)/python docs/take_pictures.py
unit: lint ## lint, types and the tests that need no daemons
	@$(BIN)/python -m pytest tests/unit
test: install ## lint, types, documentation and all tests but the long ones, on daemons of its own
	@# Each kind of test waits for daemons of its own much of the time; what the second and the third say is shown whole when
	@# they have ended. All of them run, whatever one says (-k): one that fails before another has begun would keep it from
	@# beginning.
	@$(MAKE) --no-print-directory -k -j 5 lint docs integration-tests unit-tests fault-tests
integration-tests:
	@$(BIN)/python -m pytest tests/integration
unit-tests: TESTS = tests/unit
fault-tests: TESTS = tests/faults
unit-tests fault-tests:
	@shown=$$($(BIN)/python -m pytest $(TESTS) 2>&1); code=$$?; echo "$$shown"; exit $$code
test-long: install ## the tests that take minutes each, and that `make test` leaves out
	@$(BIN)/python -m pytest -m long tests
test-faults: install ## every fault of the table, the slow ones too
	@FAULT_TABLES=docs/fault-tables.md $(BIN)/python -m pytest -m '' \
		tests/faults/test_fault_table.py tests/faults/test_disk_full.py tests/faults/test_poison_positions.py
MINUTES ?= 30
nemesis: install ## mix faults for MINUTES=60, in the order of SEED=1
	@NEMESIS_MINUTES=$(MINUTES) NEMESIS_SEED=$(SEED) FAULT_TABLES=docs/fault-tables.md \
		$(BIN)/python -m pytest tests/faults/test_nemesis.py
test-cluster: install ## run on a cluster of several brokers, DataNodes and Spark workers, and kill some; 20 minutes
	@$(BIN)/python -m pytest tests/cluster -m cluster
soak: install ## load the stream for MINUTES=30
	@SOAK_MINUTES=$(MINUTES) FAULT_TABLES=docs/fault-tables.md $(BIN)/python -m pytest tests/faults/test_soak.py -m soak

lock: install ## resolve requirements.txt and the jars' lock files again
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --upgrade \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml -o requirements.txt
	@$(BIN)/python -m local_stack.lock_jars
clean-state: down ## stop the stack and DELETE all data
	@if [ -x $(BIN)/python ]; then rm -rf "$$($(BIN)/python -c 'from genres.settings import Settings; print(Settings().state_dir)')"; fi
