# make demo: the main job on drawn portraits, written to out/demo.   make test: everything .ci/run checks.
# make docs: the site, written to _docs, every link followed.
# Both set up .venv first: Python 3.11 or newer and a package index are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MPLBACKEND := agg

.PHONY: install demo test check-sync nbs pytest test-latest package docs readme clean
install: $(VENV)/.installed

$(VENV)/.installed: settings.ini setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 >/dev/null
	$(BIN)/python -c 'import skia' 2>/dev/null || sh .ci/system-libraries
	touch $@

demo: install
	$(BIN)/portrait_demo

test: install check-sync nbs pytest docs

check-sync: install
	$(BIN)/python .ci/check_layout.py
	$(BIN)/python .ci/check_reading.py
	$(BIN)/python .ci/check_prose.py
	$(BIN)/python .ci/check_notebooks.py

nbs: install
	$(BIN)/portrait_synth out/tiny --preset tiny
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --timing

pytest: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -q -n 2 --dist loadfile

docs: install
	$(BIN)/python .ci/docs.py
	$(BIN)/python .ci/check_links.py _docs

test-latest: install # the wheel alone, beside the newest fastai and fastcore: every command, and its tests
	$(BIN)/python .ci/test_latest.py

package: install
	$(BIN)/python -m build

readme: install
	$(BIN)/python .ci/make_readme.py

clean:
	rm -rf out build _docs _proc *.egg-info
