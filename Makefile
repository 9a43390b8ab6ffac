# make demo        segments a phantom CT study with a model that ships, start to finish
# make test-fast   runs on the checkout what takes little time; make test-fast ROOM=io: of one room (folder of tests/) alone
# make test        runs the whole suite against the installed wheel
# make test-operators   runs the operators' tests with the two newest versions of torch and triton
# make lint        ruff, mypy, import-linter
# make docs        builds the documentation site into build/site
# make phantom-ct  makes the model of that name anew, from phantoms that it draws first: some three hours on two cores
#
# Each does its own set-up in a virtual environment of its own; Python 3.11 or newer, pip and make are all that is needed.
#   make test PYTHON=python3.12            another Python
#   make test PYTEST_ARGS="-k nms -x"      some of the suite
#   make test COVERAGE=1                   prints which share of each room's statements ran
#   make demo PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple"
#                                          torch without CUDA: 1 GB instead of 6

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
ROOM ?=
COVERAGE ?= $(CI)

PYTEST_OPTIONS := -p no:cacheprovider -p no:faulthandler -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
SOURCES := $(CURDIR):$(CURDIR)/kernels:$(CURDIR)/datasets:$(CURDIR)/napari_plugin

DEMO_VENV := .venv-demo
TEST_VENV := .venv-test
TORCH_VERSIONS := 2.14 2.15

# The napari tests draw: without a display of its own the suite borrows one from xvfb, where that is installed.
ifeq ($(DISPLAY)$(WAYLAND_DISPLAY),)
  XVFB := $(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1600x1000x24",)
endif

.PHONY: demo test-fast test test-operators lint format docs phantom-ct clean

demo: $(DEMO_VENV)/ready
	@sh .ci/install-wheel $(DEMO_VENV)
	@start=$$(date +%s) && $(DEMO_VENV)/bin/medmaskrcnn demo -o demo-result && echo "make demo: $$(($$(date +%s) - start)) s after installation"

# On the checkout as it is. The wheel is installed once, for what looks for the package's entry points. OpenVINO, ONNX Runtime
# and napari run only where their rooms are asked for: they need further extras, and processes of their own.
FAST := $(if $(ROOM),tests/$(ROOM),tests --ignore=tests/compression --ignore=tests/napari_plugin)
# napari's pytest plugins take each process two seconds to load.
WITHOUT_NAPARI := $(if $(filter napari_plugin,$(ROOM)),,-p no:napari -p no:napari-plugin-engine -p no:npe2 -p no:pytest-qt)
test-fast: $(TEST_VENV)/ready
	@test -f $(TEST_VENV)/installed.whl || sh .ci/install-wheel $(TEST_VENV)
	PATH="$(CURDIR)/$(TEST_VENV)/bin:$$PATH" PYTHONPATH="$(SOURCES)" $(XVFB) pytest $(FAST) -m "not slow" \
	  $(WITHOUT_NAPARI) $(PYTEST_OPTIONS) $(PYTEST_ARGS)

# From a folder outside the checkout, so that what is tested is what a user installs.
test: $(TEST_VENV)/ready-all
	@sh .ci/install-wheel $(TEST_VENV)
	@away=$$(mktemp -d) && trap 'rm -rf "$$away"' EXIT && cd "$$away" && \
	PATH="$(CURDIR)/$(TEST_VENV)/bin:$$PATH" MEDMASKRCNN_TEST_INSTALLED=1 \
	$(if $(COVERAGE),MEDMASKRCNN_COVERAGE="$$away/coverage") $(XVFB) sh "$(CURDIR)/.ci/test-in-parts" "$(CURDIR)/tests" \
	  --rootdir="$(CURDIR)" -c "$(CURDIR)/pyproject.toml" $(PYTEST_OPTIONS) $(PYTEST_ARGS)

test-operators:
	@PYTHON="$(PYTHON)" PIP_ARGS="$(PIP_ARGS)" sh .ci/test-operators $(TORCH_VERSIONS)

lint: $(TEST_VENV)/ready-lint
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy
	PYTHONPATH="$(SOURCES)" $(TEST_VENV)/bin/lint-imports
	@echo "Longest files (of lines, aim for 80 to 250):" && \
	find medmaskrcnn kernels datasets napari_plugin tests -name "*.py" -exec wc -l {} + | grep -v " total$$" | sort -rn | head -5

format: $(TEST_VENV)/ready-lint
	$(TEST_VENV)/bin/ruff check --fix .
	$(TEST_VENV)/bin/ruff format .

docs: $(TEST_VENV)/ready-all
	@sh .ci/install-wheel $(TEST_VENV)
	NO_MKDOCS_2_WARNING=1 $(TEST_VENV)/bin/python -m mkdocs build --strict

phantom-ct: $(DEMO_VENV)/ready
	@sh .ci/install-wheel $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m medmaskrcnn_datasets phantoms --count 104 --first-seed 1000 -o runs/phantoms
	$(DEMO_VENV)/bin/medmaskrcnn train runs/phantoms/manifest.json --plan phantom-ct -o runs/phantom-ct

clean:
	rm -rf $(DEMO_VENV) $(TEST_VENV) .venv-operators-* build dist demo-result .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# The dependencies; the package itself is built and put in by .ci/install-wheel, each time it has changed. Each of the last
# three brings all that the one before it brings.
NEEDED := pyproject.toml .ci/make-venv

$(DEMO_VENV)/ready: $(NEEDED)
	@sh .ci/make-venv $(DEMO_VENV) "." "$(PYTHON)" $(PIP_ARGS)

$(TEST_VENV)/ready: $(NEEDED)
	@sh .ci/make-venv $(TEST_VENV) ".[test]" "$(PYTHON)" $(PIP_ARGS)

$(TEST_VENV)/ready-all: $(NEEDED)
	@sh .ci/make-venv $(TEST_VENV) ".[test-all]" "$(PYTHON)" $(PIP_ARGS)
	@touch $@

$(TEST_VENV)/ready-lint: $(NEEDED)
	@sh .ci/make-venv $(TEST_VENV) ".[dev]" "$(PYTHON)" $(PIP_ARGS)
	@touch $(TEST_VENV)/ready-all $@
