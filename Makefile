# FlowMesh: everything there is to do, on a machine that has Rust 1.95, Python 3.11, Node 20 and gcc.
#
#   make demo [DIR=path]     three languages count a directory together, one of them is killed on the way
#   make test                every check there is; each part alone is `make test-PART`: fmt generated lint rust
#                            loom asan fuzz doc c python node behaviour examples snippets demo
#   make soak [MINUTES=10]   traffic while processes are killed, for so many minutes; then power cuts and kills by
#                            the million and the ten thousand
#   make compare-ipc         FlowMesh beside its peers, one table
#   make compare-queues      the same for jobs: beside Redis, RQ, huey, litequeue, BullMQ and the bare disk
#   make install [PREFIX=/usr/local] [DESTDIR=]   header, libraries and pkg-config file for C
#   make fmt lint doc clean
#
# What a target needs it sets up first: Python packages in .venv, Node packages in node_modules, missing
# system packages when run as root. Stamps under target/stamps keep repeated runs quick.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

DIR ?= .
MINUTES ?= 10
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)

STAMPS := target/stamps
PY := .venv/bin/python
export CARGO_TERM_COLOR ?= auto
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The directory of the release builds, wherever cargo was told to put them.
BUILD := $(abspath $(or $(CARGO_TARGET_DIR),target))

PARTS := fmt generated lint rust loom asan fuzz doc c python node behaviour examples snippets demo

.PHONY: help
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 14

# ---------- what the targets stand on

$(STAMPS)/system-%: tools/system-packages
	@mkdir -p $(STAMPS)
	tools/system-packages $*
	@touch $@

$(STAMPS)/venv: tools/requirements.txt | $(STAMPS)/system-base
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name it with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "The venv module is missing (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	[ -x $(PY) ] || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement tools/requirements.txt
	@touch $@

$(STAMPS)/npm: bindings/node/package-lock.json | $(STAMPS)/system-base
	cd bindings/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@# So that programs anywhere in the repository can import 'flowmesh'.
	mkdir -p node_modules && ln -sfn ../bindings/node node_modules/flowmesh
	@touch $@

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find core/src -name '*.rs' 2>/dev/null) core/Cargo.toml
C_SOURCES := $(shell find ffi -type f -not -path '*/tests/*' 2>/dev/null) include/flowmesh.h
PYTHON_SOURCES := $(shell find bindings/python/src bindings/python/python -name '*.rs' -o -name '*.py' -o -name '*.pyi' 2>/dev/null) \
	bindings/python/Cargo.toml bindings/python/pyproject.toml
NODE_SOURCES := $(shell find bindings/node/src bindings/node/native bindings/node/scripts -type f 2>/dev/null) \
	bindings/node/Cargo.toml bindings/node/package.json

$(STAMPS)/c: $(RUST_SOURCES) $(C_SOURCES) | $(STAMPS)/system-base
	ffi/link.sh
	@touch $@

$(STAMPS)/python: $(STAMPS)/venv $(RUST_SOURCES) $(PYTHON_SOURCES)
	$(PY) -m maturin develop --release --quiet --manifest-path bindings/python/Cargo.toml
	@touch $@

$(STAMPS)/node: $(STAMPS)/npm $(RUST_SOURCES) $(NODE_SOURCES)
	cd bindings/node && npm run --silent build
	@touch $@

.PHONY: build
build: $(STAMPS)/c $(STAMPS)/python $(STAMPS)/node

# ---------- to see and to use

.PHONY: demo
demo: build
	@examples/demo/run "$(DIR)"

.PHONY: install
install: $(STAMPS)/c
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" ffi/install.sh

.PHONY: compare-ipc
compare-ipc: build | $(STAMPS)/system-compare
	$(PY) -m pip install --quiet --requirement benches/compare/python/requirements.txt
	FLOWMESH_PYTHON="$(abspath $(PY))" cargo run --release --quiet --manifest-path benches/compare/Cargo.toml

# ONLY=python,node measures only those groups; QUICK=1 only sees that all of it works.
.PHONY: compare-queues
compare-queues: build $(STAMPS)/compare-queues | $(STAMPS)/system-compare $(STAMPS)/system-compare-queues
	FLOWMESH_PYTHON="$(abspath $(PY))" FLOWMESH_PEERS_PYTHON="$(abspath target/compare-queues/bin/python)" \
		cargo run --release --quiet --manifest-path benches/compare/Cargo.toml -- queues \
		$(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

# The peers' packages, apart from ours. Not `npm ci`: the lock lacks optional packages of other platforms.
$(STAMPS)/compare-queues: benches/compare/python/queues-requirements.txt benches/compare/node/queues/package-lock.json \
		| $(STAMPS)/system-base
	[ -x target/compare-queues/bin/python ] || $(PYTHON) -m venv target/compare-queues
	target/compare-queues/bin/python -m pip install --quiet --requirement $<
	cd benches/compare/node/queues && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: soak
soak: | $(STAMPS)/system-base
	FLOWMESH_SOAK_SECONDS=$$(( $(MINUTES) * 60 )) cargo test --release -p flowmesh --test soak -- --nocapture
	FLOWMESH_CUTS=10000000 cargo test --release -p flowmesh --test power_cuts -- --nocapture
	FLOWMESH_QUEUE_CUTS=2000000 cargo test --release -p flowmesh --test queue_power_cuts -- --nocapture
	FLOWMESH_QUEUE_KILL_ROUNDS=10000 FLOWMESH_QUEUE_FAULT_WORKLOADS=200 \
		cargo test --release -p flowmesh --test queue_crashes -- --nocapture
	FLOWMESH_MESH_KILL_ROUNDS=1000 cargo test --release -p flowmesh --test queue_kill -- --nocapture outlives
	FLOWMESH_LEDGER_KILL_ROUNDS=10000 FLOWMESH_SHUTDOWN_ROUNDS=200 \
		cargo test --release -p flowmesh --test ledger -- --nocapture survives

# ---------- checks

.PHONY: test
test: $(STAMPS)/system-base $(STAMPS)/system-tests
	@MAKE="$(MAKE)" tools/parts $(PARTS)

.PHONY: $(addprefix test-,$(PARTS))

test-fmt:
	cargo fmt --all --check

# The files made from the list of error kinds, and the C header, are what their sources say.
test-generated:
	$(PYTHON) tools/generate --check
	cargo test --quiet -p flowmesh-ffi --test header

test-lint: | $(STAMPS)/system-base
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

test-rust: | $(STAMPS)/system-base
	cargo test --quiet --workspace --no-fail-fast

# The shared-memory protocol, every interleaving; and with one ordering weakened at a time, which must be noticed.
test-loom: | $(STAMPS)/system-base
	RUSTFLAGS="--cfg loom" cargo test --quiet -p flowmesh --release --lib --target-dir $(BUILD)/loom -- loom

# Host and client against peers that write anything over all they share, watched by AddressSanitizer, which
# Rust's stable compiler carries but does not show without this word.
test-asan: | $(STAMPS)/system-base
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --quiet -p flowmesh \
		--target $$(rustc --print host-tuple) --target-dir $(BUILD)/asan --test hostile

# Every input that the fuzzers found worth keeping, through every decoder.
test-fuzz: | $(STAMPS)/system-base
	cargo test --quiet -p flowmesh --test fuzz_corpus

test-doc: | $(STAMPS)/system-base
	RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --workspace --no-deps

test-c: $(STAMPS)/c | $(STAMPS)/system-tests
	ffi/tests/run.sh

test-python: $(STAMPS)/python
	cd bindings/python && ../../$(PY) -m pytest && ../../$(PY) -m mypy

test-node: $(STAMPS)/node
	cd bindings/node && NODE_OPTIONS=--test-reporter=spec npm test --silent

test-behaviour: test-behaviour-rust test-behaviour-c test-behaviour-python test-behaviour-node

.PHONY: test-behaviour-rust test-behaviour-c test-behaviour-python test-behaviour-node
test-behaviour-rust: | $(STAMPS)/system-base
	cargo test --quiet -p flowmesh --test behaviour

test-behaviour-c: $(STAMPS)/c | $(STAMPS)/system-tests
	ffi/tests/behaviour.sh

test-behaviour-python: $(STAMPS)/python
	$(PY) tests/behaviour/run.py

test-behaviour-node: $(STAMPS)/node
	node tests/behaviour/run.mjs

test-examples: build
	examples/run

# The programs in README.md, as they stand there.
test-snippets: build
	$(PY) tools/snippets.py README.md

test-demo: build
	@examples/demo/run core

# ---------- tidiness

.PHONY: fmt
fmt:
	cargo fmt --all

.PHONY: lint
lint: test-lint

.PHONY: doc
doc: test-doc
	@echo "$(BUILD)/doc/flowmesh/index.html"

.PHONY: clean
clean:
	cargo clean --quiet
	rm -rf .venv node_modules bindings/node/node_modules bindings/node/dist bindings/node/*.node
