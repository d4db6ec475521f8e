"""Variables as feature flags for code that uses OpenFeature: `WaffleProvider`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from .errors import missing_library
from .extension import WaffleConf
from .snapshot import Change

try:
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.event import ProviderEventDetails
    from openfeature.exception import FlagNotFoundError, TypeMismatchError
    from openfeature.flag_evaluation import FlagResolutionDetails, Reason
    from openfeature.provider import AbstractProvider, Metadata
except ImportError as error:
    raise ImportError(
        ". ".join(missing_library("openfeature-sdk", "openfeature.provider", "openfeature"))
    ) from error

__all__ = ["WaffleProvider"]

T = TypeVar("T")
Context: TypeAlias = EvaluationContext | None
Object: TypeAlias = Sequence[Any] | Mapping[str, Any]


class WaffleProvider(AbstractProvider):
    """Resolves a flag to the value of the variable with its name, as JSON would hold it.

    In a request all flags are of one revision. The flag's metadata has the ``revision``; the reason
    is ``STATIC`` for a value that somebody has set, and ``DEFAULT`` for a declared default. A
    variable without a value, ``None``, resolves to the caller's default. Secrets are no flags.

    Each process that applies a change emits ``PROVIDER_CONFIGURATION_CHANGED``.

    Args:
        waffle: the application's extension.

    Example:
        >>> from flask import Flask
        >>> from openfeature import api
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.openfeature import WaffleProvider
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"NEW_CHECKOUT": {"default": False}}
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> api.set_provider(WaffleProvider(waffle))
        >>> result = waffle.update({"NEW_CHECKOUT": True})
        >>> api.get_client().get_boolean_value("NEW_CHECKOUT", False)
        True
    """

    def __init__(self, waffle: WaffleConf) -> None:
        super().__init__()
        self._waffle = waffle
        waffle.on_change(self._changed)

    def get_metadata(self) -> Metadata:
        """Name the provider."""
        return Metadata(name="uwsgi_waffle")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: Context = None
    ) -> FlagResolutionDetails[bool]:
        """Resolve a variable that is true or false."""
        return self._resolve(flag_key, default_value, "a boolean", bool)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: Context = None
    ) -> FlagResolutionDetails[str]:
        """Resolve a text, or what JSON writes as one: a time, a choice."""
        return self._resolve(flag_key, default_value, "a string", str)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: Context = None
    ) -> FlagResolutionDetails[int]:
        """Resolve a whole number."""
        return self._resolve(flag_key, default_value, "an integer", int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: Context = None
    ) -> FlagResolutionDetails[float]:
        """Resolve a number, whole ones too."""
        return self._resolve(flag_key, default_value, "a number", float)

    def resolve_object_details(
        self, flag_key: str, default_value: Object, evaluation_context: Context = None
    ) -> FlagResolutionDetails[Object]:
        """Resolve a list or a dictionary."""
        return self._resolve(flag_key, default_value, "an object or a list", list, dict)

    def _resolve(
        self, name: str, default: T, wanted: str, *types: type
    ) -> FlagResolutionDetails[T]:
        state = self._waffle.state
        variable = state.schema.variables.get(name)
        if variable is None:
            raise FlagNotFoundError(f"{name!r} is not declared in WAFFLE_CONFS")
        if variable.secret:
            raise FlagNotFoundError(f"{name!r} is secret, so it is not shown as a flag")
        snapshot = state.current()
        plain = json.loads(state.schema.text_of(snapshot.values, name))
        if types == (float,) and type(plain) is int:
            plain = float(plain)
        if plain is not None and type(plain) not in types:
            raise TypeMismatchError(f"{name!r} is not {wanted}")
        is_set = plain is not None and name in snapshot.values.model_fields_set
        return FlagResolutionDetails(
            value=default if plain is None else plain,
            reason=Reason.STATIC if is_set else Reason.DEFAULT,
            flag_metadata={"revision": snapshot.revision},
        )

    def _changed(self, change: Change) -> None:
        names = sorted(change.new.keys() - self._waffle.state.schema.secrets)
        if names:
            self.emit_provider_configuration_changed(
                ProviderEventDetails(flags_changed=names, metadata={"revision": change.revision})
            )
