SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup packages demo test fuzz bench bench-enqueue bench-http clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/release/clamgate
PYTHON := .venv/bin/python -B

# gcc and its company link Rust; libclamav and libclang build clamav-sys; ClamAV's own programs and test files, curl,
# openssl, PostgreSQL and zip serve the tests, the demo and the benchmark.
PACKAGES := build-essential pkg-config libclamav-dev libclang-dev \
    clamav clamav-freshclam clamav-daemon clamdscan clamav-testfiles curl openssl postgresql zip python3-venv

# What `make bench` measures, and on what. Give it a larger corpus and a real database for numbers that mean something. With QUICK=1 it
# shows in some minutes that all parts work, and leaves docs/ alone. BENCH: further options of benches/bench.py.
PARTS  ?= all
CORPUS ?= /usr/share/clamav-testfiles
DB     ?= tests/data/signatures
ROUNDS ?= 3
QUICK  ?=
BENCH  ?=

# What `make demo` shows: one of these, the designs of docs/designs, or else what becomes of a set of samples.
DEMOS := user-waits quarantine-bucket
DEMO  ?=

# A step of `make test`: its command, then what it prints.
step = @echo "==> $(1)"; $(1)

# A fuzz target, its number of runs (0: the seeds alone), and perhaps other seeds than its own. It says a lot, which is of
# interest only when it fails.
fuzz = echo "==> fuzz $(1)"; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; mkdir "$$scratch/corpus"; \
    cargo fuzz run --sanitizer none --target-dir "$(abspath $(TARGET))/fuzz" $(1) "$$scratch/corpus" fuzz/seeds/$(1) $(3) -- \
    -runs=$(2) -max_total_time=60 -seed=1 -timeout=60 -rss_limit_mb=4096 >"$$scratch/log" 2>&1 \
    || { cat "$$scratch/log"; exit 1; }

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "make demo takes DEMO=$(firstword $(DEMOS)) or DEMO=$(lastword $(DEMOS)): the designs of docs/designs"
	@echo "make bench takes PARTS=\"engine switches end-to-end growth reload memory\" CORPUS=dir DB=dir ROUNDS=n QUICK=1"
	@echo "CARGO_TARGET_DIR is honoured"

setup: packages .venv/.installed ## install what is missing: Debian packages, and Python packages in .venv

# Nothing is asked of apt when nothing is missing. Installing ClamAV's daemons also starts them, which nothing here needs: those
# that this installs are stopped and disabled, those that were there before are left alone. PostgreSQL, which would set up a cluster
# and start it, is told not to: an existing createcluster.conf is left alone, one that this makes is removed in the end.
packages:
	@missing=(); for package in $(PACKAGES); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null)" = installed ] || missing+=("$$package"); \
	done; \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	echo "missing packages: $${missing[*]}"; \
	command -v apt-get >/dev/null || { \
	    echo "error: no apt-get here; install what corresponds to these Debian packages, then call cargo directly" >&2; exit 1; }; \
	root=(); if [ "$$(id -u)" != 0 ]; then \
	    command -v sudo >/dev/null || { echo "error: installing them needs root or sudo" >&2; exit 1; }; root=(sudo); fi; \
	"$${root[@]}" apt-get update -q; \
	conf=/etc/postgresql-common/createcluster.d/clamgate.conf; \
	if [[ " $${missing[*]} " = *" postgresql "* ]]; then \
	    trap '"$${root[@]}" rm -f "$$conf"; "$${root[@]}" rmdir --ignore-fail-on-non-empty "$$(dirname "$$conf")"' EXIT; \
	    "$${root[@]}" mkdir -p "$$(dirname "$$conf")"; \
	    echo 'create_main_cluster = false' | "$${root[@]}" tee "$$conf" >/dev/null; fi; \
	"$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"; \
	for package in "$${missing[@]}"; do case $$package in clamav-daemon|clamav-freshclam) \
	    "$${root[@]}" service "$$package" stop || true; \
	    "$${root[@]}" update-rc.d "$$package" disable || true ;; \
	esac; done; \
	if [ -d /run/systemd/system ] && [[ " $${missing[*]} " = *" clamav-daemon "* ]]; then \
	    "$${root[@]}" systemctl disable --now clamav-daemon.socket; fi

.venv/.installed: tests/requirements.txt | packages
	python3 -m venv --clear .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

ifneq ($(filter demo,$(MAKECMDGOALS)),)
ifneq ($(filter-out $(DEMOS),$(DEMO)),)
$(error there is no DEMO=$(DEMO). There are: $(DEMOS); and without DEMO=, the sample set)
endif
endif

demo: setup ## the service at work on a local AWS: a table of what became of each upload
	cargo build --release --locked
	$(PYTHON) demo/$(subst -,_,$(or $(DEMO),demo)).py --clamgate $(BINARY)

test: setup ## format, lints, licences, documentation and all tests
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny --version 0.20.2
	$(call step,cargo fmt --all --check)
	$(call step,cargo clippy --locked --workspace --all-targets -- -D warnings)
	$(call step,cargo clippy --locked --package clamgate --no-default-features --lib -- -D warnings)
	$(call step,RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps)
	$(call step,cargo deny --locked check licenses bans sources)
	$(call step,cargo test --locked --workspace)
	@$(MAKE) --no-print-directory fuzz

# On a stable toolchain, hence without a sanitizer. What the fuzzer finds on its way is not kept.
fuzz: packages ## each fuzz target on a bounded number of inputs
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz --version 0.13.2
	@$(call fuzz,event,100000)
	@$(call fuzz,clamd,100000)
	@$(call fuzz,verdict,100000)
	@$(call fuzz,engine,2000)
	@$(call fuzz,unpack,0,fuzz/seeds/engine)

bench: setup ## speed and memory, beside clamd, clamscan and others: writes docs/benchmarks.md
	cargo build --release --locked
	$(PYTHON) benches/bench.py --clamgate $(BINARY) --parts "$(PARTS)" --corpus "$(CORPUS)" --db "$(DB)" --rounds $(ROUNDS) \
	    $(if $(QUICK),--quick --out $(TARGET)/bench,--out docs) $(BENCH)

bench-http: setup ## /livez under load, ten thousand clients, bodies of 10 GB
	cargo build --release --locked
	$(PYTHON) benches/livez.py --clamgate $(BINARY)
	$(PYTHON) benches/crowd.py --clamgate $(BINARY)

bench-enqueue: setup ## the memory of clamgate enqueue at 5,000 and 50,000 objects
	cargo build --release --locked
	$(PYTHON) benches/enqueue.py --clamgate $(BINARY)

clean: ## remove what building and setup left in this directory
	cargo clean
	rm -rf .venv
