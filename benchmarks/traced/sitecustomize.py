"""Notes when the stages of a start begin and end; every Python process imports this if its folder is on the path.

The environment says what to note: ``TRACE_STAGES`` is JSON, a module to its stages, each the name of a function
or of a method (``Class.method``) and how to call the stage; an empty name is the import of the module itself.
``TRACE_FILE`` gets a line of JSON for each: process, stage, begin, end, and what of it was its own, without stages
inside it; in seconds of the clock that all processes share.
"""

import functools
import importlib.abc
import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path

_STAGES = json.loads(os.environ.get("TRACE_STAGES", "{}"))
_FILE = os.environ.get("TRACE_FILE", "")
_inside = threading.local()


class _Stage:
    """One run of a stage, as a context."""

    def __init__(self, name):
        self._name = name

    def __enter__(self):
        self._outer = getattr(_inside, "stage", None)
        _inside.stage = self
        self.children = 0.0
        self._begin = time.monotonic()

    def __exit__(self, *failure):
        end = time.monotonic()
        _inside.stage = self._outer
        if self._outer is not None:
            self._outer.children += end - self._begin
        note(self._name, self._begin, end, end - self._begin - self.children)


def note(name, begin, end, own):
    """Write a line."""
    with Path(_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "stage": name, "begin": begin, "end": end, "own": own}) + "\n")


def _traced(function, name):
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*arguments, **options):  # other work runs meanwhile, so that all of it counts as its own
            begin = time.monotonic()
            try:
                return await function(*arguments, **options)
            finally:
                end = time.monotonic()
                note(name, begin, end, end - begin)

        return run

    @functools.wraps(function)
    def run_at_once(*arguments, **options):
        with _Stage(name):
            return function(*arguments, **options)

    return run_at_once


def _trace(module, stages):
    for path, name in stages.items():
        owner, _, attribute = path.rpartition(".")
        owner = getattr(module, owner, None) if owner else module
        found = inspect.getattr_static(owner, attribute, None)
        if isinstance(found, classmethod):
            setattr(owner, attribute, classmethod(_traced(found.__func__, name)))
        elif found is not None:
            setattr(owner, attribute, _traced(found, name))


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        stages = dict(_STAGES.get(fullname, {}))
        if not stages:
            return None
        _STAGES.pop(fullname)
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute, name = spec.loader.exec_module, stages.pop("", None)

        def exec_module(module):
            if name is None:
                execute(module)
            else:
                with _Stage(name):
                    execute(module)
            _trace(module, stages)

        spec.loader.exec_module = exec_module
        return spec


if _STAGES and _FILE:
    sys.meta_path.insert(0, _Finder())
    note("python", time.monotonic(), time.monotonic(), 0.0)
