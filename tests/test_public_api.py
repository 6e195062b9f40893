"""Tests `import noisegen`: a cheap import, full documentation, examples that run."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import noisegen

MODULES = ["noisegen", *(m.name for m in pkgutil.walk_packages(noisegen.__path__, "noisegen."))]
# Their examples compile networks; those of the other packages take a few seconds in all.
SLOW = ("noisegen.data", "noisegen.diagnostics", "noisegen.models", "noisegen.tasks")
# The other packages that noisegen needs are always there.
NEED_BOKEH = ("noisegen.reports.canvas", "noisegen.reports.explorable_plots")
FUNCTIONS = [
    *(name for name in noisegen.__all__ if type(getattr(noisegen, name)).__name__ == "function")
]


def test_version():
    assert noisegen.__version__ == "0.1.0"


def test_the_import_is_cheap():
    code = "import sys, noisegen; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"jax", "optax", "numpy", "noisegen"} <= set(done.stdout.split())
    heavy = {"flax", "tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "orbax"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_annotated_and_have_an_example(name):
    function = getattr(noisegen, name)
    assert ">>> " in function.__doc__
    num_arguments = function.__code__.co_argcount + function.__code__.co_kwonlyargcount
    assert len(function.__annotations__) == num_arguments + 1


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n.startswith(SLOW) else []) for n in MODULES],
)
def test_examples_in_docstrings_run(name):
    if name in NEED_BOKEH:
        pytest.importorskip("bokeh", reason="pages are explorable with Bokeh")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
