# Two commands on a fresh machine: `make lab` to learn, `make test` to trust. Both install into .venv alone.

PYTHON ?= python3
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)
LAB_ARGS ?=
FRESH ?=
EXPERIMENT ?= all

# Matplotlib's list of fonts stays with the .venv that has the fonts: one in the home folder, made while another .venv was
# being removed, had none of Matplotlib's own, and every figure then complained.
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

RUN := .venv/bin/python
# pip reports to a person, and keeps quiet in CI's log. Modules are compiled when they are first used: most never are.
PIP := $(RUN) -m pip install --disable-pip-version-check --no-compile $(if $(CI),-q)
INSTALL := $(PIP) -c constraints.txt

define CHECK_PYTHON
import platform, sys
if (sys.platform, platform.machine()) == ("darwin", "x86_64"):
    sys.exit("PyTorch is no longer built for Intel Macs (the last was 2.2, the course needs a newer one): open the lessons in Google "
             "Colab instead, see README.md.")
if not (3, 10) <= sys.version_info[:2] <= (3, 14):
    sys.exit("The course needs Python 3.10 to 3.14, but $(PYTHON) is %d.%d: install one of these and name it, as in "
             "'make lab PYTHON=python3.12'." % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("$(PYTHON) has no venv module: install it (on Debian and Ubuntu: 'sudo apt-get install python3-venv') and try again.")
endef
export CHECK_PYTHON

.PHONY: help lab test test-colab-widgets notebooks bundle site experiments clean

help:
	@echo "make lab          install, and open your copy of the lessons in JupyterLab (LAB_ARGS=--no-browser on a server,"
	@echo "                  FRESH=03 for a new copy of lesson 03; yours is kept under another name)"
	@echo "make test         install, then lint, types, unit tests, notebooks and browser tests"
	@echo "make test-colab-widgets   the widgets' Python again, and the lessons, under Colab's ipywidgets 7"
	@echo "make notebooks    run all notebooks again and store their outputs (NOTEBOOKS=notebooks/03-*.ipynb for some)"
	@echo "make bundle       build dist/moe-lesson-bundle.zip, to upload to Google Colab"
	@echo "make site         build dist/site, the web edition (NOTEBOOKS=notebooks/03-*.ipynb for some; minutes the first time)"
	@echo "make experiments  train again, with the presets for a CPU (EXPERIMENT=name for one; all take more than a day):"
	@echo "                  the tables of experiments in data/results and the models in data/checkpoints are replaced"
	@echo "make clean        remove .venv, .venv-widgets7 and what the tools left behind"
	@echo "PYTHON=python3.12 with any of these picks the interpreter that .venv is made with."

lab: .venv/lab
	$(RUN) tools/my_lessons.py $(if $(FRESH),--fresh $(FRESH)) $(LAB_ARGS)

# One thread per test process, since the processes share the cores. Notebooks keep the learner's predictions in
# MOE_LESSON_HOME: here that is a fresh folder, and the store_notebooks plugin gives each notebook its own part of it.
test: .venv/test
	$(RUN) -m ruff check .
	@$(RUN) -c "import matplotlib.font_manager"  # makes the list once, not in each process
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && \
	MOE_LESSON_HOME="$$home" OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --dist loadscope --no-loadscope-reorder --durations=10 \
		--nbval --nbval-current-env --nbval-cell-timeout 300 --nbval-sanitize-with tests/lessons/nbval_sanitize.cfg -p store_notebooks

# A new widget's unit tests are among these without being named, but not those in a browser: Colab's own JavaScript
# can't be imitated here (tests/widgets/conftest.py). The long tests come first, and a free process takes the next test.
test-colab-widgets: .venv-widgets7/ready
	OMP_NUM_THREADS=1 .venv-widgets7/bin/python -m pytest -n logical --dist worksteal tests/lessons/colab_widgets.py \
		tests/lessons/test_lesson.py $$(grep -rl --include='test_*.py' '^from moe_lesson.widgets' tests/widgets | grep -v _browser.py)

notebooks: .venv/test
	$(RUN) tools/heroes.py
	$(RUN) tools/store_notebooks.py $(NOTEBOOKS)
	$(RUN) tools/readme_picture.py
	$(RUN) tools/colab.py

bundle:
	$(PYTHON) tools/bundle.py

site: .venv/site
	$(RUN) tools/site_build.py $(NOTEBOOKS)

experiments: .venv/lab
	$(RUN) -m moe_lesson.experiments $(EXPERIMENT) --preset cpu --device cpu --out data

clean:
	rm -rf .venv .venv-widgets7 build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The files .venv/lab and .venv/test are stamps: pip runs again only when the lists of packages change.
.venv/lab: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the course into .venv (some minutes the first time) ..."
	$(INSTALL) -e '.[lab]'
	@touch $@

.venv/test: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the course and its tests into .venv (some minutes the first time) ..."
	$(INSTALL) -e '.[lab,test]'
	@touch $@ .venv/lab

.venv/site: pyproject.toml constraints.txt | $(RUN)
	@echo "Installing the course, its tests and what builds the web edition into .venv (some minutes the first time) ..."
	$(INSTALL) -e '.[lab,test,site]'
	@touch $@ .venv/test .venv/lab

# All of .venv, with the ipywidgets of Colab in front: a .pth file leads to .venv's packages, so that torch is not there twice.
# The .pth files in that folder are not read, hence the folder of the course.
.venv-widgets7/ready: tests/lessons/colab_requirements.txt .venv/test
	@echo "Installing Colab's ipywidgets into .venv-widgets7 ..."
	@$(RUN) -m venv --clear --without-pip .venv-widgets7
	$(PIP) --no-deps --target .venv-widgets7/lib/python*/site-packages -r tests/lessons/colab_requirements.txt
	@cd .venv-widgets7/lib/python*/site-packages && \
		printf '%s\n' "$(CURDIR)"/.venv/lib/python*/site-packages "$(CURDIR)" > course.pth
	@touch $@

$(RUN):
	@command -v $(PYTHON) > /dev/null || { echo "No $(PYTHON) here: install Python 3.10 to 3.14 and try again."; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
