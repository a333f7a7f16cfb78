# Each target installs what it needs into $(VENV) first; a second run starts at once.
VENV := $(or $(TWOFOLD_VENV),.venv)
BIN = $(VENV)/bin
export TWOFOLD_VENV := $(VENV)
export HF_HUB_OFFLINE ?= 1

.PHONY: help run test test-all lint docs format lock clean

help:
	@echo "make run [ARGS='photo.jpg --task depth']   depth and normals of a photograph, and a picture of both"
	@echo "make test [ARGS=tests/test_cli.py]         the tests"
	@echo "make lint | format | lock                  checks; formatting; constraints.txt anew"
	@echo "make docs                                  the documentation as a site, in site/"

# Without ARGS: a photograph that scikit-image ships.
run:
	@bash scripts/env.sh samples
	@$(BIN)/twofold predict $(or $(ARGS),"$$($(BIN)/python scripts/sample_photo.py)") --out predictions --side-by-side

# One thread in each process: threads of two processes that wait for each other cost many times what they gain.
test:
	@bash scripts/env.sh test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0 --durations=10 -m "not slow and not browser" $(ARGS)

test-all:
	@bash scripts/env.sh test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint:
	@bash scripts/env.sh dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

docs:
	@bash scripts/env.sh docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "site/index.html"

format:
	@bash scripts/env.sh dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every version the tests ran with, for every platform. torch is held at the version that is tested, without
# a build tag, so that the same file serves CPU and GPU builds.
lock:
	bash scripts/lock.sh

clean:
	rm -rf $(VENV) dist build predictions images
