# Two commands for newcomers: `make demo` and `make test`. Both set up .venv first, once. `make long` tests on, for longer.

PYTHON ?= python3.11
BIN = .venv/bin

.PHONY: demo test long lab clean

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
		--notebook-dir=lab --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb

# torch first and alone: another package's open "torch" would fetch a build of several GB.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep -o '^torch==[^ ]*' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# The same list for conda on a GPU box; tests/test_environment.py holds the two together.
environment.yml: requirements.txt
	@{ echo "# Made from requirements.txt by \`make environment.yml\`: change that list, not this file."; \
	   echo "name: octkit"; echo "channels: [conda-forge]"; echo "dependencies:"; \
	   echo "  - python=3.11"; echo "  - pip"; echo "  - pip:"; \
	   grep -o '^[a-z0-9-]*==[^ ]*' requirements.txt | sed 's/^paddlepaddle==/paddlepaddle-gpu==/; s/^/      - /'; } > $@

clean:
	rm -rf .venv
