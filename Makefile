# Every target works on a fresh checkout with Python >= 3.11, make and the package registries.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One worker more than there are cores, since some tests wait for browsers and programs.
WORKERS = $$($(BIN)/python -c "import os; print(os.cpu_count() + 1)")

$(VENV)/installed: pyproject.toml export/pyproject.toml runtime/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kdedge needs Python 3.11 or later")'
	@echo 'Installing kdedge, its dependencies (PyTorch, ONNX Runtime, OpenCV, …) and development tools into $(VENV). This takes a few minutes without output.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e './runtime[camera]' -e ./export -e '.[dev]'
	touch $@

.PHONY: help install demo test coverage test-models test-arm64 fuzz mutants claims docs check format wheels web-assets clean

help:  ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed  ## Create .venv with the three packages and development tools

demo: install  ## Distill, export, validate and run on rendered images: 4 to 6 minutes of CPU time
	$(BIN)/kdedge demo

test: install  ## Run the tests: about 13 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

coverage: install  ## Run the tests and list uncovered lines by file; a third slower than make test, so CI does not run it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --cov

test-models: install  ## Export every classifier of torchvision and timm's families: takes hours, resumable
	$(BIN)/python -m pytest -m models

test-arm64: install  ## Run the runtime's tests on emulated 64-bit ARM: needs root, debootstrap and qemu; ten minutes
	PIP=$(BIN)/pip tests/arm64/run.sh

fuzz: install  ## Fuzz model files, images, run folders, bundles and requests for a minute (FUZZ_SECONDS=60)
	PYTHONPATH=tests/runtime OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --seconds $${FUZZ_SECONDS:-60}

mutants: install  ## Run mutation tests on the numerical core: eleven minutes
	$(BIN)/python tests/mutation/run.py

claims: install  ## List each figure of README and docs with its command; fail on a figure without one
	$(BIN)/python tests/claims/check.py

docs: install  ## Build the documentation into dist/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file .github/mkdocs.yml

check: install  ## Lint and type-check, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kdedge export/kdedge_export runtime/kdedge_runtime tests/benchmarks tests/claims tests/language tests/examples .github/cli_reference.py
	$(BIN)/python tests/language/language.py
	$(BIN)/lint-imports --no-cache

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheels: install  ## Build the three wheels into dist/
	for package in runtime export .; do $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist ./$$package || exit; done
	cp devices/container/requirements.lock dist/

web-assets: install  ## Download onnxruntime-web for `kdedge web` and the next runtime wheel (needs npm)
	cd $$(mktemp -d) && npm pack --silent onnxruntime-web@1.30.0 && \
		$(CURDIR)/$(BIN)/python -m kdedge_runtime.server.browser.web_runtime onnxruntime-web-1.30.0.tgz

clean:  ## Remove build and environment files
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache runtime/kdedge_runtime/server/browser/ort
