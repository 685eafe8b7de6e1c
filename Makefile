# Two commands for newcomers: `make demo` and `make test`. Both set up .venv first, once. `make long` tests on, for longer.

PYTHON ?= python3.11
BIN = .venv/bin

# LANGUAGE=zh on make's command line: lessons, figures and report in Chinese. Many systems have another LANGUAGE set.
demo lab: export OCTKIT_LANGUAGE := $(if $(filter command,$(firstword $(origin LANGUAGE))),$(LANGUAGE),$(or \
	$(OCTKIT_LANGUAGE),en))

.PHONY: demo test long lab lock sbom clean

demo: .venv/ready
	$(BIN)/octkit run --profile demo

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

# What takes too long for `make test`: a training and whole runs killed again and again. -s shows the seeds.
long: .venv/ready
	$(BIN)/pytest -m long -s -o faulthandler_timeout=0

# On copies of the lessons, so that running them leaves no trace in git; they share reports/ and data/. Kernels talk
# through files in a folder of this user's alone, of a short name as a socket's path is: ports are open to other users.
lab: .venv/ready
	$(BIN)/octkit lessons lab
	JUPYTER_RUNTIME_DIR=$$(mktemp -d /tmp/octkit.XXXXXX) $(BIN)/jupyter lab --KernelManager.transport=ipc \
		--notebook-dir=lab '--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb?file-browser-path=/'

# All of it by the hashes of requirements/, torch first and alone: the build for the CPU where an index of the user's has it
# (torch-cpu.txt), else PyPI's, which on Linux needs CUDA's libraries, of several GB (cuda.txt).
# TORCH="torch==2.13.0 --index-url URL" takes any other build, without a hash.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
HASHED = $(PIP) --require-hashes -r requirements
.venv/ready: $(wildcard requirements/*.txt) pyproject.toml
	$(PYTHON) -m venv .venv
	$(HASHED)/pip.txt
	$(if $(TORCH),$(PIP) $(TORCH),$(HASHED)/torch-cpu.txt 2>/dev/null || { $(HASHED)/torch.txt && $(HASHED)/cuda.txt; })
	$(HASHED)/lock.txt
	$(PIP) --no-build-isolation --editable .
	touch $@

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

# The same list for conda on a GPU box; tests/test_environment.py holds the two together.
environment.yml: requirements.txt
	@{ echo "# Made from requirements.txt by \`make environment.yml\`: change that list, not this file."; \
	   echo "name: octkit"; echo "channels: [conda-forge]"; echo "dependencies:"; \
	   echo "  - python=3.11"; echo "  - pip"; echo "  - pip:"; \
	   grep -o '^[a-z0-9-]*==[^ ]*' requirements.txt | sed 's/^paddlepaddle==/paddlepaddle-gpu==/; s/^/      - /'; } > $@

clean:
	rm -rf .venv .venv-tools
