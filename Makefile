# Two commands for newcomers: `make demo` and `make test`. Both set up .venv first, once. `make long` tests on, for longer.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13,$(if $(shell command -v $(name)),$(name))) python3)
BIN = .venv/bin

# LANGUAGE=zh on make's command line: lessons, figures and report in Chinese. Many systems have another LANGUAGE set.
demo lab: export OCTKIT_LANGUAGE := $(if $(filter command,$(firstword $(origin LANGUAGE))),$(LANGUAGE),$(or \
	$(OCTKIT_LANGUAGE),en))

.PHONY: demo test long lab lock sbom clean

demo: .venv/ready
	$(BIN)/octkit run --profile demo

# In so many processes of one thread each.
JOBS ?= 2

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What takes too long for `make test`: a training and whole runs killed again and again. -s shows the seeds.
long: .venv/ready
	$(BIN)/pytest -m long -s -o faulthandler_timeout=0

# On copies of the lessons, so that running them leaves no trace in git; they share reports/ and data/. Kernels talk
# through files in a folder of this user's alone, of a short name as a socket's path is: ports are open to other users.
# In JupyterLab's terminals and in cells with ! the lessons' commands are found as they are written: `octkit run …`.
lab: .venv/ready
	$(BIN)/octkit lessons lab
	PATH="$(CURDIR)/$(BIN):$$PATH" JUPYTER_RUNTIME_DIR=$$(mktemp -d /tmp/octkit.XXXXXX) \
		$(BIN)/jupyter lab --KernelManager.transport=ipc --notebook-dir=lab \
		--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb

# setup_env.py says what TORCH and TORCH_INDEX, of the command line or the environment, are for.
.venv/ready: $(wildcard requirements/*.txt) pyproject.toml setup.py setup_env.py
	$(PYTHON) setup_env.py

# Which file of each package, for Pythons from 3.11 and every system, by its hash; in files apart: pip, torch, CUDA, the rest.
# torch-cpu.txt is written by hand: PyTorch's own index is no part of PyPI.
lock:
	$(PYTHON) -m venv .venv-tools && .venv-tools/bin/pip install --quiet uv
	printf 'pip\nsetuptools>=77\n' | .venv-tools/bin/uv pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate requirements.txt - -o .venv-tools/all.txt
	cd requirements && awk '/^[a-z0-9]/ { name = $$0; sub(/==.*/, "", name); part = name == "pip" || name == "torch" ? name : \
	    name ~ /^(nvidia|cuda|triton)/ ? "cuda" : "lock" } { print > (part ".txt") }' ../.venv-tools/all.txt

# What the kit consists of, for who has to look for known faults in it: a bill of materials in CycloneDX's format.
sbom: .venv/ready
	$(PYTHON) -m venv .venv-tools && .venv-tools/bin/pip install --quiet cyclonedx-bom
	.venv-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON -o sbom.json $(BIN)/python

# The same list for conda on a GPU box, and one without torch for Paddle's own build, which cannot stand beside torch's
# (docs/gpu.md says why, and why this version of CUDA). tests/test_environment.py holds the lists together.
CUDA ?= cu126
PINS = grep -o '^[a-z0-9-]*==[^ ]*' requirements.txt
define HEAD
# Made from requirements.txt by `make $@`: change that list, not this file. docs/gpu.md says what it is for.
name: NAME
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
endef
export HEAD

environment.yml: requirements.txt
	@{ echo "$$HEAD" | sed 's/^name: .*/name: octkit/'; \
	   echo "      - --extra-index-url https://download.pytorch.org/whl/$(CUDA)"; \
	   $(PINS) | sed 's/^torch==.*/&+$(CUDA)/; s/^/      - /'; echo "      - --editable ."; } > $@

environment-paddle.yml: requirements.txt
	@{ echo "$$HEAD" | sed 's/^name: .*/name: octkit-paddle/'; \
	   echo "      - --extra-index-url https://www.paddlepaddle.org.cn/packages/stable/$(CUDA)/"; \
	   $(PINS) | sed '/^torch==/d; s/^paddlepaddle==/paddlepaddle-gpu==/; s/^/      - /'; } > $@

clean:
	rm -rf .venv .venv-tools
