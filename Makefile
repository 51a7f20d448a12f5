# Everything runs in .venv. `make demo` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install -q --disable-pip-version-check
# The top-level folders map to subpackages of wengert; mypy sees that through a tree of links.
TYPES := build/types
LAYERS := frontend ir passes backends runtime stdlib

.PHONY: demo test test-slow lint bench clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(INSTALL) -e '.[test,dev,plot,data]'
	touch $@

demo: $(VENV)/.installed
	$(PY) examples/demo.py

test: $(VENV)/.installed
	$(PY) -m pytest -n 2

test-slow: $(VENV)/.installed
	$(PY) -m pytest -m slow

lint: $(VENV)/bin/python
	$(INSTALL) -e '.[test,dev,plot,data]'
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf $(TYPES) && mkdir -p $(TYPES)/wengert
	for file in wengert/*; do ln -s ../../../$$file $(TYPES)/wengert/; done
	for layer in $(LAYERS); do ln -s ../../../$$layer $(TYPES)/wengert/; done
	cd $(TYPES) && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml -p wengert

bench: $(VENV)/.installed
	$(INSTALL) torch==2.13.0 || true  # the build without CUDA, where there is one
	$(INSTALL) -e '.[bench]'
	status=0; for script in gmm calls compile straightline digits cone posteriors vae air mesh trees; do \
		$(PY) benchmarks/$$script.py || status=1; done; exit $$status

clean:
	rm -rf $(VENV) build out *.egg-info
