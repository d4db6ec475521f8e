"""For the tests of an application: variables that have other values within a block."""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import Any, TypeVar, cast

from flask import Flask

from ..errors import InvalidValue
from ..extension import Binding, binding_of
from ..plans import encoded, plan_update
from ..snapshot import Snapshot
from ..stores import Commit, Stored

__all__ = ["override"]

F = TypeVar("F", bound=Callable[..., Any])


class override:  # used as a function, as `contextlib.suppress` is
    """Give variables of an application other values, for this thread or task and within a block or
    a decorated function.

    The store isn't written, and revision, history and status stay what they are. The values are
    validated as `update` does,
    together with those in force. Where overrides are nested they combine, and the inner one wins.

    A test, synchronous or not, can be decorated, and a class whose test methods are all meant,
    without its ``setUp``. A generator
    can't: write ``with override(…):`` in it.

    Args:
        app: the application; others aren't affected.
        values: the values by name.

    Raises:
        UnknownVariable: when the block is entered: a name isn't declared.
        InvalidValue: likewise, values are refused. Also later, when a variable is read and an
            update has meanwhile brought
            values that don't fit the override's.

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
        self._layers: list[
            _Layer
        ] = []  # those that were entered; in several threads the same object may be

    def __enter__(self) -> None:
        binding = binding_of(self._app)
        binding.__class__ = _Overridable
        layer = _Layer(self, binding, self._values)
        self._layers.append(layer)
        _entered.set((*_entered.get(), layer))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        here = _entered.get()
        ours = [layer for layer in here if layer.owner is self and not layer.over]
        # A fixture of an asynchronous test may be left in another context than it was entered in.
        layer = (ours or self._layers)[-1]
        layer.over = True  # for tasks that go on, too
        self._layers.remove(layer)
        _entered.set(tuple(other for other in here if not other.over))

    def __call__(self, decorated: F) -> F:
        if isinstance(decorated, type):
            return cast(F, self._decorate_class(decorated))
        if inspect.isgeneratorfunction(decorated) or inspect.isasyncgenfunction(decorated):
            raise TypeError(
                f"override can't decorate the generator {decorated.__name__!r}: write `with override(…):` around its yield."
            )
        if inspect.iscoroutinefunction(decorated):

            @functools.wraps(decorated)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await decorated(*args, **kwargs)

            return cast(F, asynchronous)

        @functools.wraps(decorated)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            with self:
                return decorated(*args, **kwargs)

        return cast(F, synchronous)

    def _decorate_class(self, decorated: type) -> type:
        tests = {
            name: inspect.getattr_static(decorated, name)
            for name in dir(decorated)
            if name.startswith("test")
        }
        wrapped: dict[str, object] = {
            name: self(test) for name, test in tests.items() if isinstance(test, FunctionType)
        }
        wrapped |= {
            name: type(test)(self(test.__func__))
            for name, test in tests.items()
            if isinstance(test, (staticmethod, classmethod))
        }
        if not wrapped:
            raise TypeError(
                f"override finds no method of {decorated.__name__!r} whose name begins with 'test'. Decorate what is to run."
            )
        for name, test in wrapped.items():
            setattr(decorated, name, test)
        return decorated


class _Layer:
    """One block that was entered: what it lays over the values that the application has."""

    def __init__(self, owner: override, binding: Binding, values: dict[str, object]) -> None:
        self.owner, self.binding, self.over = owner, binding, False
        # The JSON texts that an update would write.
        self.texts = plan_update(binding.schema, values)(_stored(binding, binding.current()))
        self._seen: tuple[Snapshot, list[_Layer], Snapshot] | None = None

    def lay_over(self, base: Snapshot, layers: list[_Layer]) -> Snapshot:
        """Return ``base`` with the values of all layers, of which this is the innermost; made anew
        only when something changed.
        """
        if self._seen is None or self._seen[0] is not base or self._seen[1] != layers:
            texts = {name: text for layer in layers for name, text in layer.texts.items()}
            try:
                values = self.binding.schema.load(
                    encoded(_stored(self.binding, base).after(Commit(texts))).values
                )
            except InvalidValue as error:
                told = f"The override of {', '.join(texts)} doesn't fit the values of revision {base.revision}"
                raise InvalidValue(error.problems, told) from None
            self._seen = (base, layers, Snapshot(base.revision, base.digest, values))
        return self._seen[2]


_entered: contextvars.ContextVar[tuple[_Layer, ...]] = contextvars.ContextVar(
    "uwsgi_waffle_overrides", default=()
)


class _Overridable(Binding):
    """A binding from its first override on; before, reading costs what it costs without this
    module.
    """

    def current(self) -> Snapshot:
        base = super().current()
        layers = [layer for layer in _entered.get() if layer.binding is self and not layer.over]
        return layers[-1].lay_over(base, layers) if layers else base


def _stored(binding: Binding, snapshot: Snapshot) -> Stored:
    """Return a snapshot as a store would hold it: what has a value of its own, not the defaults."""
    values = snapshot.values
    return Stored(
        snapshot.revision,
        {
            name: binding.schema.variables[name].dump(getattr(values, name))
            for name in values.model_fields_set
        },
    )
