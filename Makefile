# make demo       an agent on bodies it never saw, as a table and a film; then one trained here, beside a control
# make test       lint and tests, without the slow ones
# make test-slow  the slow tests only
# make lint       ruff

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_OPTIONS ?=
WORKERS ?= 2
INSTALLED := .venv/installed
INSTALLED_SLOW := .venv/installed-slow

# With several test workers, small kernels on several threads are many times slower than on one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	.venv/bin/somite-evaluate run=bundled/cheetah-limb_transformer bodies=unseen episodes=5 video=true \
		output=runs/demo
	.venv/bin/somite-train experiment=demo
	.venv/bin/somite-evaluate 'run=[last,bundled/cheetah-limb_transformer,bundled/cheetah-mlp]' bodies=unseen \
		random_baseline=false output=runs/demo/control
	@echo 'Curves: .venv/bin/tensorboard --logdir runs'

# Each worker begins with a part of the files of its own: what a file's tests share is made once.
PYTEST := .venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

test: lint
	$(PYTEST)

test-slow: $(INSTALLED_SLOW)
	$(PYTEST) -m slow --timeout 3600

lint: $(INSTALLED)
	.venv/bin/ruff check .

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Somite needs Python 3.11 or newer, found:' \
		"$$(python3 --version 2>&1)." 'Name another one: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo 'No virtual environment could be made; Debian and Ubuntu have it in python3-venv.' >&2; exit 1; }
	.venv/bin/python -m pip install --no-compile $(PIP_OPTIONS) -e '.[dev]' -c constraints.txt
	@# pip compiles on one core, for half of its time. What is for another Python stays as it is, as with pip.
	@.venv/bin/python -m compileall -qq -j 0 -x '/(tests?|examples)/' .venv/lib || true
	@touch $@

# Ray and Submitit, some 100 MB, which only slow tests need.
$(INSTALLED_SLOW): $(INSTALLED)
	.venv/bin/python -m pip install $(PIP_OPTIONS) -e '.[dev,ray,submitit]' -c constraints.txt
	@touch $@
