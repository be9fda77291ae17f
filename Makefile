# What can be done here, one target each. `make help` lists them; `make` alone builds the library.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
CC ?= cc
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the SONAME: the major version, below 1.0 with the minor one. build.rs sets the same, and a test compares them.
SOVERSION := $(shell echo $(VERSION) | sed -E 's/^(0\.[0-9]+|[1-9][0-9]*)\..*/\1/')
TARGET := $(or $(CARGO_TARGET_DIR),target)
LIBDIR ?= lib
# Relative to PREFIX; distributions pass it as an absolute path.
override LIBDIR := $(patsubst $(PREFIX:%/=%)/%,%,$(LIBDIR))
ROOT = $(DESTDIR)$(PREFIX)
LIB = $(if $(filter /%,$(LIBDIR)),$(error LIBDIR = $(LIBDIR) is not below PREFIX = $(PREFIX)),$(ROOT)/$(LIBDIR))
# What the tree calls itself in ols.pc.
PC_PREFIX ?= $(PREFIX)
DIST ?= $(TARGET)/dist
PACKAGE := libols-$(VERSION)-$(shell uname -m)-$(shell uname -s | tr A-Z a-z)
# From LIBDIR/cmake/ols back to PREFIX: a step up for each folder between.
empty :=
CMAKE_TO_PREFIX = ../..$(subst $(empty) ,,$(patsubst %,/..,$(subst /, ,$(LIBDIR))))
SYSTEM_LIBRARIES = $(shell sed -n 's/^Libs.private: *//p' packaging/ols.pc.in)
FILL = sed -e 's|@PREFIX@|$(PC_PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|; s|@SOVERSION@|$(SOVERSION)|g' \
	-e 's|@CMAKE_TO_PREFIX@|$(CMAKE_TO_PREFIX)|; s|@SYSTEM_LIBRARIES@|$(SYSTEM_LIBRARIES)|; s|@POINTER_BYTES@|$(shell expr $$(getconf LONG_BIT) / 8)|'

.DEFAULT_GOAL := build
# `make build install` builds before it installs, with -j too.
.NOTPARALLEL:
.PHONY: help build demo example-c example-cpp example-go example-julia test setup lint test-avx512 test-c test-cpp test-cuda test-go test-julia test-python test-rust test-install test-ring test-demo check-cuda bench bench-languages install uninstall dist clean bless licenses

help: ## lists the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

build: ## builds libols.so and libols.a in release mode
	$(CARGO) build --release --locked

demo: ## trains on real images with three losses; tables and pictures in target/demo (ARGS="--help" for more)
	$(CARGO) run --release --locked -p ols-demo -- $(ARGS)

example-c: build ## trains softmax regression on the digits from a page of C
	gzip -dc examples/data/digits.csv.gz > $(TARGET)/digits.csv
	$(CC) -std=c99 -O2 -Iinclude examples/c/digits.c $(TARGET)/release/libols.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc -o $(TARGET)/digits
	$(TARGET)/digits $(TARGET)/digits.csv

example-cpp: build ## trains a convolutional network with LibTorch (ARGS="--help" for more; PyTorch's wheel: 5 GB, once)
	examples/cpp/run $(ARGS)

example-go: build ## trains on the digits from Go, against a tree installed under target/go (ARGS="--help" for more)
	$(MAKE) --no-print-directory install PREFIX=$(abspath $(TARGET))/go/tree DESTDIR= > /dev/null
	cd examples/go && PKG_CONFIG_PATH=$(abspath $(TARGET))/go/tree/lib/pkgconfig LD_LIBRARY_PATH=$(abspath $(TARGET))/go/tree/lib go run ./digits $(ARGS)

example-julia: ## trains on the digits from Julia (ARGS="--help" for more); installs a Julia on Debian
	bindings/julia/test/run examples/julia/digits.jl $(ARGS)

test: setup lint test-rust test-c ## sets up what tests need and runs everything, the wrappers' suites two at a time (CI's command)
	bindings/julia/setup
	tests/side-by-side test-python test-avx512 test-go test-cpp test-julia test-install test-ring test-demo

setup: ## installs the compilers that the tests need (Debian), or says what is missing
	tests/setup

lint: ## formatting and clippy, without a warning; documentation without a broken link
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Those of tests/ that test what `cargo test` compiles; the rest is test-c's, and looks at the release library whoever asks.
RUST_TESTS = --lib --test cuda $(addprefix --test ,$(filter-out header symbols c_abi,$(basename $(notdir $(wildcard tests/*.rs)))))

# All with --workspace, for the same features each time; see [profile.release-tests] in Cargo.toml.
RELEASE_TESTS = $(CARGO) test --locked --profile release-tests --workspace

test-rust: setup ## unit, property, conformance and documentation tests; all but the last in debug and in release mode, those of CUDA in the latter
	$(CARGO) test --locked $(RUST_TESTS)
	$(CARGO) test --locked --doc
	$(RELEASE_TESTS) $(RUST_TESTS)

test-c: setup ## the C ABI from C and C++: header, misuse, conformance, sanitizers, installed tree
	tests/c/run

test-avx512: setup ## the kernels' tests on an emulated processor with AVX-512, where this one has none; installs the emulator and a kernel for it on Debian
	tests/avx512/run

test-cpp: setup ## the C++ wrapper and the LibTorch module, with the documentation's programs and the example (PyTorch's wheel: 5 GB, once)
	bindings/cpp/tests/run

test-go: setup ## the Go modules: vet, staticcheck, conformance, race detector, sanitizer, both kinds of linking, examples
	bindings/go/tests/run

test-julia: setup ## the Julia package over an installed tree: rules, conformance, examples; installs a Julia on Debian
	bindings/julia/test/run

test-install: setup build ## make install, uninstall and dist, with projects outside of the tree: C and C++, CMake and pkg-config, shared and static
	tests/install/run

test-ring: setup ## a saved state goes around the languages, bit for bit: Rust, C, C++, Go, Julia, Python; installs a Julia on Debian
	tests/ring/run

test-demo: setup ## the demo's own tests and its shortest run
	$(RELEASE_TESTS) --bin ols-demo --test command_line

test-cuda: setup ## the CUDA backend without a GPU: on a stand-in for the driver, under sanitizers, registers by ptxas
	$(RELEASE_TESTS) --test cuda

check-cuda: build ## on a machine with a GPU: correctness, behaviour, sanitizers and the race (ARGS="--help" for more); see docs/cuda.md
	cuda/check $(ARGS)

test-python: setup ## the Python package: lint, types, the wheel, all tests (makes an environment with PyTorch, 5 GB, on the first run)
	bindings/python/run-tests

bench: setup build ## the race against PyTorch and a copy of the logits (ARGS="--help" for more), then bench-languages; see docs/benchmarks.md
	benches/race/run $(ARGS)
	$(if $(findstring --help,$(ARGS)),,benches/languages/run $(filter --write-docs,$(ARGS)))

bench-languages: setup build ## what each language adds to a call, over the bare C call, in nanoseconds (ARGS=--write-docs puts it into the page); installs a Julia on Debian
	benches/languages/run $(ARGS)

# Runs no compiler, so that root can install what another user has built.
install: ## copies library, headers, pkg-config file and CMake package to PREFIX, after `make build` (DESTDIR and LIBDIR as usual)
	@for file in $(TARGET)/release/libols.so $(TARGET)/release/libols.a; do \
		test -f $$file || { echo "make install: there is no $$file; run \`make build\` first, not as root" >&2; exit 1; }; \
	done
	install -d $(LIB)/pkgconfig $(LIB)/cmake/ols $(ROOT)/include/ols/torch $(ROOT)/share/doc/ols
	install -m 755 $(TARGET)/release/libols.so $(LIB)/libols.so.$(VERSION)
	ln -sf libols.so.$(VERSION) $(LIB)/libols.so.$(SOVERSION)
	ln -sf libols.so.$(SOVERSION) $(LIB)/libols.so
	install -m 644 $(TARGET)/release/libols.a $(LIB)/libols.a
	install -m 644 include/ols.h include/ols_dlpack.h $(ROOT)/include
	install -m 644 bindings/cpp/include/ols/*.hpp $(ROOT)/include/ols
	install -m 644 bindings/cpp/include/ols/torch/*.hpp $(ROOT)/include/ols/torch
	install -m 644 LICENSE-MIT LICENSE-APACHE LICENSE-THIRD-PARTY.md $(ROOT)/share/doc/ols
	$(FILL) packaging/ols.pc.in > $(LIB)/pkgconfig/ols.pc
	$(FILL) packaging/ols-config.cmake.in > $(LIB)/cmake/ols/ols-config.cmake
	$(FILL) packaging/ols-config-version.cmake.in > $(LIB)/cmake/ols/ols-config-version.cmake
	chmod 644 $(LIB)/pkgconfig/ols.pc $(LIB)/cmake/ols/ols-config.cmake $(LIB)/cmake/ols/ols-config-version.cmake

uninstall: ## removes what install put under PREFIX
	rm -f $(LIB)/libols.so $(LIB)/libols.so.$(SOVERSION) $(LIB)/libols.so.$(VERSION) $(LIB)/libols.a $(LIB)/pkgconfig/ols.pc
	rm -f $(LIB)/cmake/ols/ols-config.cmake $(LIB)/cmake/ols/ols-config-version.cmake
	rm -f $(addprefix $(ROOT)/share/doc/ols/,LICENSE-MIT LICENSE-APACHE LICENSE-THIRD-PARTY.md)
	rm -f $(ROOT)/include/ols.h $(ROOT)/include/ols_dlpack.h $(patsubst bindings/cpp/%,$(ROOT)/%,$(wildcard bindings/cpp/include/ols/*.hpp bindings/cpp/include/ols/torch/*.hpp))
	rmdir $(ROOT)/include/ols/torch $(ROOT)/include/ols $(LIB)/cmake/ols $(ROOT)/share/doc/ols 2> /dev/null || true

dist: build ## packs the installed tree, which may be unpacked anywhere: target/dist/libols-VERSION-SYSTEM.tar.gz (DIST: another folder)
	rm -rf $(DIST)/$(PACKAGE)
	$(MAKE) --no-print-directory install DESTDIR=$(DIST)/ PREFIX=$(PACKAGE) LIBDIR=lib PC_PREFIX='$$$${pcfiledir}/../..'
	install -m 644 README.md CHANGELOG.md $(DIST)/$(PACKAGE)/share/doc/ols
	install -m 644 bindings/cpp/README.md $(DIST)/$(PACKAGE)/share/doc/ols/README-cpp.md
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C $(DIST) -cf - $(PACKAGE) | gzip -9n > $(DIST)/$(PACKAGE).tar.gz
	@echo $(DIST)/$(PACKAGE).tar.gz

bless: ## rewrites generated files: header, symbol list, conformance cases
	OLS_BLESS=1 $(CARGO) test --locked --test header --test symbols --test conformance

licenses: ## rewrites LICENSE-THIRD-PARTY.md, after a change of Cargo.lock (needs cargo-about)
	$(CARGO) about generate --locked --config packaging/about.toml --output-file LICENSE-THIRD-PARTY.md packaging/about.hbs

clean: ## removes all that was built
	$(CARGO) clean
