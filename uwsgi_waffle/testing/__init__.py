"""For an application's tests: variables that have other values within a block."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ContextDecorator
from types import FunctionType
from typing import Any, TypeVar, cast

from flask import Flask

from ..overlay import Layer, enter, leave, open_blocks
from ..state import state_of

__all__ = ["override"]

F = TypeVar("F", bound=Callable[..., Any])


class override(ContextDecorator):  # used like a function, as `contextlib.suppress` is
    """Give variables of an application other values within a block or a decorated function.

    Only the thread or task that runs the block sees them. The store isn't written; revision,
    history and status stay what they are. The values are validated as `update` does, together
    with the values in force. Nested overrides combine, and the inner one wins.

    It decorates a function, a coroutine function, or a class: then all its test methods, but not
    its ``setUp``. It can't decorate a generator: write ``with override(…):`` in it.

    Args:
        app: the application; others aren't affected.
        values: the values by name.

    Raises:
        UnknownVariable: a name isn't declared. Raised when the block is entered.
        InvalidValue: a value is rejected. Raised when the block is entered, and when a variable
            is read after an update whose values don't fit those of the override.

    Example:
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.testing import override
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> with override(app, SITENAME="x"):
        ...     waffle.values.SITENAME, app.config["SITENAME"], waffle.revision
        ('x', 'x', 0)
        >>> waffle.values.SITENAME
        'Waffle'
    """

    def __init__(self, app: Flask, /, **values: object) -> None:
        self._app, self._values = app, values
        # Several, if one object decorates functions that call each other or run in threads.
        self._entered: list[Layer] = []

    def __enter__(self) -> None:
        state = state_of(self._app)
        layer = Layer(state.schema, state.current(), self._values)
        self._entered.append(layer)
        enter(layer)

    def __exit__(self, *_: object) -> None:
        here = [layer for layer in self._entered if layer in open_blocks()]
        # A fixture of an asynchronous test may leave the block in another context.
        layer = (here or self._entered)[-1]
        self._entered.remove(layer)
        leave(layer)

    def __call__(self, decorated: F) -> F:
        if isinstance(decorated, type):
            return cast(F, self._decorate_class(decorated))
        if inspect.isgeneratorfunction(decorated) or inspect.isasyncgenfunction(decorated):
            raise TypeError(
                f"override can't decorate the generator {decorated.__name__!r}: write"
                " `with override(…):` around its yield."
            )
        if not inspect.iscoroutinefunction(decorated):
            return super().__call__(decorated)

        @functools.wraps(decorated)
        async def overridden(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await decorated(*args, **kwargs)

        return cast(F, overridden)

    def _decorate_class(self, decorated: type) -> type:
        found = False
        for name in dir(decorated):
            test = inspect.getattr_static(decorated, name)
            if not name.startswith("test"):
                continue
            if isinstance(test, FunctionType):
                setattr(decorated, name, self(test))
            elif isinstance(test, (staticmethod, classmethod)):
                setattr(decorated, name, type(test)(self(test.__func__)))
            else:
                continue
            found = True
        if not found:
            raise TypeError(
                f"override finds no method of {decorated.__name__!r} whose name begins with"
                " 'test'. Decorate what is to run."
            )
        return decorated
