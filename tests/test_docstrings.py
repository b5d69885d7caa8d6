"""The examples in docstrings are true, and every module can be imported."""

import doctest
import importlib
import pkgutil

import pytest

import servolt

MODULES = [module.name for module in pkgutil.walk_packages(servolt.__path__, "servolt.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
