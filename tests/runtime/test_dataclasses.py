"""Comparison of dataclasses that have arrays."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import fields, is_dataclass, replace

from toy_predictions import toy_prediction

import kdedge_runtime

ARRAY = re.compile(r"ndarray|NDArray|Floats|Integers|Pixels|\bSample\b")


def test_predictions_are_compared_by_identity() -> None:
    first, second = toy_prediction(), toy_prediction()
    assert first == first and first != second and first != replace(first)
    assert second in [first, second] and len({first, second, first}) == 2
    assert first.frame != second.frame and len({first.frame, second.frame}) == 2


def test_every_dataclass_with_arrays_is_compared_by_identity() -> None:
    modules = [
        importlib.import_module(each.name) for each in pkgutil.walk_packages(kdedge_runtime.__path__, "kdedge_runtime.")
    ]
    classes = {each for module in modules for _, each in inspect.getmembers(module, inspect.isclass)}
    with_arrays = {
        each
        for each in classes
        if is_dataclass(each) and any(ARRAY.search(str(field.type)) for field in fields(each) if field.compare)
    }
    assert len(with_arrays) > 12
    assert {each.__qualname__ for each in with_arrays if each.__eq__ is not object.__eq__} == set()
