# What can be done here, one target each. `make help` lists them.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
CC ?= cc
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the SONAME; build.rs sets the same one, and a test compares them.
SOVERSION := 0
TARGET := $(or $(CARGO_TARGET_DIR),target)
ROOT = $(DESTDIR)$(PREFIX)

.DEFAULT_GOAL := help
.PHONY: help build demo example-c test setup lint test-rust test-c test-julia test-demo bench install uninstall clean bless

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

build: ## builds libols.so and libols.a in release mode
	$(CARGO) build --release --locked

demo: ## trains on real images with three losses; tables and pictures in target/demo (ARGS="--help" for more)
	$(CARGO) run --release --locked -p ols-demo -- $(ARGS)

example-c: build ## trains softmax regression on the digits from a page of C
	gzip -dc examples/data/digits.csv.gz > $(TARGET)/digits.csv
	$(CC) -std=c99 -O2 -Iinclude examples/c/digits.c $(TARGET)/release/libols.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc -o $(TARGET)/digits
	$(TARGET)/digits $(TARGET)/digits.csv

test: setup lint test-rust test-c test-julia test-demo ## sets up what tests need and runs everything

setup: ## installs the compilers that the tests need (Debian), or says what is missing
	tests/setup

lint: ## formatting and clippy, without a warning; documentation without a broken link
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

test-rust: ## unit, property, conformance and documentation tests, in debug and in release mode
	$(CARGO) test --locked
	$(CARGO) test --locked --release

test-c: ## the C ABI from C and C++: header, misuse, conformance, sanitizers, installed tree
	tests/c/run

test-julia: ## the Julia package over an installed tree: rules, conformance, examples; installs a Julia on Debian
	bindings/julia/test/run

test-demo: ## the demo's own tests and its shortest run
	$(CARGO) test --locked --release -p ols-demo

bench: build ## the race against PyTorch and a copy of the logits (ARGS="--help" for more); see docs/benchmarks.md
	benches/race/run $(ARGS)

install: build ## installs library, header and pkg-config file under PREFIX
	install -d $(ROOT)/lib/pkgconfig $(ROOT)/include
	install -m 755 $(TARGET)/release/libols.so $(ROOT)/lib/libols.so.$(VERSION)
	ln -sf libols.so.$(VERSION) $(ROOT)/lib/libols.so.$(SOVERSION)
	ln -sf libols.so.$(SOVERSION) $(ROOT)/lib/libols.so
	install -m 644 $(TARGET)/release/libols.a $(ROOT)/lib/libols.a
	install -m 644 include/ols.h include/ols_dlpack.h $(ROOT)/include
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' packaging/ols.pc.in > $(ROOT)/lib/pkgconfig/ols.pc

uninstall: ## removes what install put under PREFIX
	rm -f $(ROOT)/lib/libols.so $(ROOT)/lib/libols.so.$(SOVERSION) $(ROOT)/lib/libols.so.$(VERSION) $(ROOT)/lib/libols.a
	rm -f $(ROOT)/include/ols.h $(ROOT)/include/ols_dlpack.h $(ROOT)/lib/pkgconfig/ols.pc

bless: ## rewrites generated files: header, symbol list, conformance cases
	OLS_BLESS=1 $(CARGO) test --locked --test header --test symbols --test conformance

clean: ## removes all that was built
	$(CARGO) clean
