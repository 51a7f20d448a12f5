# Everything runs in .venv. `make demo` and `make test` are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# The top-level folders map to subpackages of wengert; strict mode lets mypy and editors see it.
INSTALL := $(PY) -m pip install -q --disable-pip-version-check --config-settings editable_mode=strict

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
	$(VENV)/bin/mypy -p wengert

bench: $(VENV)/.installed
	$(PY) -m pip install -q --disable-pip-version-check optax
	status=0; for script in gmm calls compile straightline digits; do \
		$(PY) benchmarks/$$script.py || status=1; done; exit $$status

clean:
	rm -rf $(VENV) build out *.egg-info
