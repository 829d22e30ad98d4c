# AegisFS: `make help` lists what can be made.

# The product brings Swift's libraries with it, and leaves out the run-time check that no two parts of
# the program change a variable at once; every test runs with that check.
SWIFT_BUILD = swift build -c release --static-swift-stdlib -Xswiftc -enforce-exclusivity=unchecked
# Tests look inside the targets, and run on optimized code with the project's own checks on.
SWIFT_TEST_FLAGS = -c release -Xswiftc -enable-testing --scratch-path .build/testing
MINUTES ?= 60
SEED ?= 1
PREFIX ?= /usr/local

.PHONY: help deps build test test-long demo bench format lint install clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

deps: ## Install the missing Debian packages
	@scripts/install-dependencies

build: deps ## Build the command: .build/release/aegisfs
	$(SWIFT_BUILD) --product aegisfs

test: deps ## Build and run every test, real mounts included
	swift build $(SWIFT_TEST_FLAGS) --build-tests
	scripts/run-tests $(SWIFT_TEST_FLAGS) --skip-build

test-long: deps ## Run the campaigns for MINUTES=60 from SEED=1, adding to build/tally.tsv
	swift build $(SWIFT_TEST_FLAGS) --build-tests
	scripts/test-long --minutes $(MINUTES) --seed $(SEED)

demo: build ## Format an image, mount it, use it, check it, clean up
	@scripts/demo

bench: build ## Measure beside other filesystems, interleaved; writes docs/benchmarks
	@scripts/install-dependencies --bench
	scripts/bench/bench --output docs/benchmarks

format: ## Format the sources
	swift format --in-place --recursive Sources Tests Package.swift

install: build ## Install the command and its mount helpers below PREFIX
	scripts/install $(PREFIX)

clean: ## Remove what was built
	rm -rf .build build
