# Two commands matter: `make demo` and `make test`. Each creates .venv and installs what it needs first; a second call is instant.
# PYTHON chooses the interpreter (any Python >= 3.11); pip's own variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) choose where from.

PYTHON ?= python3
comma := ,
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# torch-tensorrt-rtx unpacks as the module torch_tensorrt, so what it is tested with lives beside .venv, and uses its packages.
RTX_VENV := .venv-rtx
RTX_BIN := $(RTX_VENV)/bin
RTX_STAMP := $(RTX_VENV)/.installed
TENSORRT_10 := 10.15.1.29
RTX_TESTS := tests/test_triton_kernel.py tests/test_upload.py tests/rtx
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
RTX_PYTEST_FLAGS ?=

# NVIDIA's TensorRT-RTX, which builds without a GPU, is for Linux on x86_64; tests that need it skip elsewhere.
EXTRAS := view,daemon,evaluate,finetune,$(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),tensorrt-rtx$(comma))test

.PHONY: install demo test test-all test-rtx test-rtx-all lint types clean
.DELETE_ON_ERROR:

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/sam2-stream demo $(DEMO_FLAGS)

test: lint types
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_FLAGS)
	$(MAKE) test-rtx

test-all: lint types
	$(BIN)/python -m pytest --timeout 1800 $(PYTEST_FLAGS)
	$(MAKE) test-rtx-all

# Torch-TensorRT's converters, NVIDIA's builder, Triton's compiler; there are packages of them for Linux on x86_64 only.
ifeq ($(shell uname -sm),Linux x86_64)
test-rtx: $(RTX_STAMP)
	$(RTX_BIN)/python -m pytest -m "not slow" $(RTX_TESTS) $(RTX_PYTEST_FLAGS)

test-rtx-all: $(RTX_STAMP)
	$(RTX_BIN)/python -m pytest --timeout 1800 $(RTX_TESTS) $(RTX_PYTEST_FLAGS)
else
test-rtx test-rtx-all:
	@echo "tests/rtx not run: torch-tensorrt-rtx is for Linux x86_64 only, this is $(shell uname -sm)"
endif

lint: $(STAMP)
	$(BIN)/python -m ruff check stream engines tests benchmarks

types: $(STAMP)
	$(BIN)/python -m mypy

clean:
	rm -rf $(VENV) $(RTX_VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo.mp4 demo.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# sam2 is published as source only, and its isolated build would download a second torch. So torch comes first, then everything in
# one resolve without build isolation, the CUDA extension (which nothing here uses) left out. The stamp is written last: an
# interrupted install is taken up again by the next make.
$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: '$(PYTHON)' is '$$($(PYTHON) --version 2>&1)', expected Python >= 3.11; try: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@rm -f $(STAMP)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "error: '$(PYTHON) -m venv' failed, expected a Python with venv and pip; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel numpy
	$(BIN)/python -m pip install -c constraints.txt torch
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $(STAMP)

# The first environment's packages, torch among them, are seen from here; what is installed here is only what would clash with
# them. Torch-TensorRT's own run time needs CUDA's libraries and is not used, so it is taken away.
$(RTX_STAMP): $(STAMP) constraints-rtx.txt
	@rm -f $(RTX_STAMP)
	$(BIN)/python -m venv --clear $(RTX_VENV)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(RTX_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth
	$(RTX_BIN)/python -m pip install --no-deps -r constraints-rtx.txt
	$(RTX_BIN)/python -m pip install --no-deps --target $(RTX_VENV)/tensorrt-10 tensorrt-cu13-bindings==$(TENSORRT_10)
	@rm -f $(RTX_VENV)/lib/python*/site-packages/torch_tensorrt/lib/libtorchtrt*.so \
		$(RTX_VENV)/lib/python*/site-packages/torch_tensorrt/_C*.so
	@touch $(RTX_STAMP)
