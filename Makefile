# The front door. `make help` lists what it can do; the work is done by scripts/ and CMakeLists.txt.

MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/bash
.DEFAULT_GOAL := all

PREFIX ?= /usr/local
DESTDIR ?=
V ?= 0
export V JOBS LLAMA_DIR SYSTEM_LLAMA NATIVE

models := build/models
chat_model := $(models)/smollm2-135m-instruct-q4_1.gguf
run_tests := python3 tests/run.py $(if $(filter-out 0,$(V)),-v) $(if $(T),--only '$(T)')

# $(call test_programs,DIR,FOLDER...): the programs that the test sources of these folders become below DIR.
test_programs = $(foreach folder,$(2),$(patsubst %.c,$(1)/%,$(sort $(wildcard tests/$(folder)/*.c))))

# tests/cli/_*.py are modules that the scripts share.
cli_tests := $(filter-out tests/cli/_%,$(sort $(wildcard tests/cli/*.py)))

# Fuzz targets with their corpus, by our own driver.
fuzz_targets := $(patsubst fuzz/%.c,%,$(sort $(wildcard fuzz/*.c)))
fuzz_tests := $(foreach target,$(fuzz_targets),'build/fuzz/$(target) fuzz/corpus/$(target)')
FUZZ ?= gguf
SECONDS_OF_FUZZING ?= 1800

.PHONY: all
all: tools ## build the program (build/pagoda) and the library
	@scripts/build.sh release product

.PHONY: test
test: all models texts-if-possible ## run all tests; T=word runs the suites with that word in their name
	@scripts/build.sh release
	@$(run_tests) $(call test_programs,build,unit kernels engine) $(cli_tests) $(fuzz_tests) \
	    'tools/tidy.py --self-test' tools/tidy.py

.PHONY: chat
chat: all ## build, fetch the demo model, and chat with it
	@scripts/fetch-models.sh smollm2
	@exec build/pagoda chat $(chat_model)

.PHONY: models
models: tools ## fetch the models for the demo and the tests into build/models
	@scripts/fetch-models.sh

.PHONY: texts
texts: ## fetch long real texts for evaluation into build/texts
	@scripts/fetch-texts.sh

.PHONY: texts-if-possible
texts-if-possible:
	@scripts/fetch-texts.sh --optional

.PHONY: bench
bench: all models texts-if-possible ## run the benchmarks
	@scripts/build.sh release benches
	@if [ -f bench/run.sh ]; then exec bash bench/run.sh; else echo "the benchmark programs are in build/bench"; fi

.PHONY: ik-bench
ik-bench: tools ## build/peer/llama-bench: ik_llama.cpp as a peer for pagoda bench
	@scripts/build-ik-bench.sh

.PHONY: dev
dev: tools ## build for a debugger, with all assertions, into build/dev
	@scripts/build.sh dev

.PHONY: asan
asan: tools models texts-if-possible ## run unit, kernel and engine tests under address and UB sanitizers
	@scripts/build.sh asan
	@$(run_tests) $(call test_programs,build/asan,unit kernels engine)

# Not the engine tests: llama.cpp is not instrumented, so its own synchronisation would be invisible.
.PHONY: tsan
tsan: tools ## run unit and kernel tests under the thread sanitizer
	@scripts/build.sh tsan
	@$(run_tests) $(call test_programs,build/tsan,unit kernels)

.PHONY: arm
arm: tools ## run kernel tests as on an ARM, in an emulator; T=word as in make test
	@T='$(T)' scripts/arm.sh

.PHONY: fuzz
fuzz: tools ## fuzz FUZZ=target (gguf) by libFuzzer for SECONDS_OF_FUZZING=1800, with sanitizers; needs clang
	@scripts/build.sh fuzz fuzz_$(FUZZ)
	@mkdir -p build/fuzzer/found/$(FUZZ)
	@cd build/fuzzer/found && ../fuzz/$(FUZZ) -max_total_time=$(SECONDS_OF_FUZZING) -print_final_stats=1 -verbosity=0 \
	    -max_len=9216 -artifact_prefix=$(FUZZ)- $(FUZZ) $(CURDIR)/fuzz/corpus/$(FUZZ)

.PHONY: tidy
tidy: ## check layering, limits and banned calls
	@python3 tools/tidy.py

.PHONY: setup
setup tools: ## check the tools of the build; as root with apt, install what lacks
	@scripts/setup.sh

.PHONY: tools

.PHONY: install
install: all ## install below PREFIX (default /usr/local), staged in DESTDIR
	@DESTDIR='$(DESTDIR)' cmake --install build --prefix '$(PREFIX)'

.PHONY: uninstall
uninstall: ## remove what the last make install put there
	@[ -f build/install_manifest.txt ] || { echo "pagoda: error: nothing was installed from this directory" >&2; exit 1; }
	@while read -r file || [ -n "$$file" ]; do rm -fv "$(DESTDIR)$$file"; done <build/install_manifest.txt

.PHONY: clean
clean: ## remove our build output; keep llama.cpp, models and texts
	@[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name deps ! -name models ! -name texts -exec rm -rf {} +

.PHONY: distclean
distclean: ## remove everything that was built or fetched
	@rm -rf build

.PHONY: help
help: ## show this list
	@echo "make targets:"
	@sed -n 's/^\([a-z][a-z -]*\):.*## \(.*\)/\1\t\2/p' Makefile | sed 's/ tools\t/\t/' | \
	    awk -F '\t' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo "variables:"
	@echo "  V=1        show commands and test output      JOBS=n     parallel jobs"
	@echo "  CC, CXX    compilers (default: clang, else gcc)  NATIVE=0   not only for this processor"
	@echo "  LLAMA_DIR=path  use this llama.cpp tree       SYSTEM_LLAMA=1  use the system's libllama"
	@echo "  PREFIX, DESTDIR  for install and uninstall"
