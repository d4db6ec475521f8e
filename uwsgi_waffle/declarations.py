"""How ``WAFFLE_CONFS`` is read: a dictionary of declarations, or a pydantic model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PydanticSchemaGenerationError,
    PydanticUserError,
    SecretBytes,
    SecretStr,
    TypeAdapter,
)
from pydantic.fields import FieldInfo

from .errors import SchemaError
from .variable import Variable, contains, infer_type

__all__ = ["RESERVED_PREFIX", "from_mapping", "from_model"]

log = logging.getLogger("uwsgi_waffle")

RESERVED_PREFIX = "WAFFLE_"
MAX_NAME_LENGTH = 255
LEGACY_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "json": JsonValue,
}
DECLARATION_KEYS = ("desc", "default", "type", "secret", "group", "title", "was")


def from_mapping(confs: Mapping[Any, Any], configured: Mapping[str, Any]) -> dict[str, Variable]:
    """Read a dictionary of declarations.

    Args:
        confs: the dictionary.
        configured: has the defaults of those that declare none.

    Raises:
        SchemaError: naming the variable and what is wrong with it.
    """
    variables = {name: _from_declaration(name, conf, configured) for name, conf in confs.items()}
    _check_former_names(variables)
    untyped = [v.name for v in variables.values() if v.default is None and v.type is JsonValue]
    untyped = [name for name in untyped if confs[name].get("type") is None]
    if untyped:
        log.warning(
            "uwsgi_waffle: WAFFLE_CONFS gives %s neither a type nor a default but None, so any "
            "JSON fits: 123456 becomes a number. Declare, for instance, 'type': str | None.",
            ", ".join(map(repr, untyped)),
        )
    return variables


def from_model(
    model: type[BaseModel], configured: Mapping[str, Any], config: ConfigDict
) -> dict[str, Variable]:
    """Read a pydantic model; errors as in `from_mapping`.

    Args:
        model: the model.
        configured: as in `from_mapping`.
        config: how single values are validated.
    """
    if any(base.__module__.partition(".")[0] == "pydantic_settings" for base in model.__mro__):
        raise SchemaError(
            f"WAFFLE_CONFS: {model.__name__!r} is a model of pydantic-settings, which would read "
            "the environment each time that values change. Derive it from pydantic.BaseModel. To "
            "give a variable its value from the environment, set WAFFLE_ENV_PREFIX."
        )
    variables = {
        name: _from_field(name, field, configured, config)
        for name, field in model.model_fields.items()
    }
    _check_former_names(variables)
    return variables


def _from_declaration(name: object, conf: object, configured: Mapping[str, Any]) -> Variable:
    name = _check_name(name)
    if not isinstance(conf, Mapping):
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}] must be a dictionary such as {{'default': ...}}, not "
            f"{type(conf).__name__}."
        )
    unknown = sorted(str(key) for key in conf if key not in DECLARATION_KEYS)
    if unknown:
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}] has unknown keys {unknown}; known are"
            f" {list(DECLARATION_KEYS)}."
        )
    default = conf["default"] if "default" in conf else _configured(name, configured)
    annotation = conf.get("type")
    if isinstance(annotation, str):
        if annotation not in LEGACY_TYPES:
            raise SchemaError(
                f"WAFFLE_CONFS[{name!r}]: unknown type {annotation!r}; use a Python type or one of"
                f" {sorted(LEGACY_TYPES)}."
            )
        annotation = LEGACY_TYPES[annotation]
    return _variable(name, annotation or infer_type(default), default, conf)


def _from_field(
    name: str, info: FieldInfo, configured: Mapping[str, Any], config: ConfigDict
) -> Variable:
    _check_name(name)
    annotation: Any = info.annotation
    choice = [] if info.discriminator is None else [Field(discriminator=info.discriminator)]
    for metadata in (*choice, *info.metadata):
        annotation = Annotated[annotation, metadata]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if getattr(info, "default_factory_takes_validated_data", False):  # since pydantic 2.10
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}]: a default can't depend on other values, which change. Give "
            "default_factory a function without arguments, or make it a property of the model."
        )
    default = info.get_default(call_default_factory=True)
    if info.is_required():
        default = _configured(name, configured)
    words = {"desc": info.description, "title": info.title}
    return _variable(name, annotation, default, {**extra, **words}, config)


def _configured(name: str, configured: Mapping[str, Any]) -> Any:
    if name not in configured:
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} needs a default, there or as app.config[{name!r}]."
        )
    return configured[name]


def _variable(
    name: str,
    annotation: Any,
    default: Any,
    conf: Mapping[str, Any],
    config: ConfigDict | None = None,
) -> Variable:
    try:
        adapter = _adapter(annotation, config)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}]: pydantic can't validate {annotation!r}: {error}"
        ) from error
    variable = Variable(
        name=name,
        desc=_words(conf, "desc"),
        type=annotation,
        default=default,
        secret=bool(conf.get("secret")) or contains(annotation, SecretStr, SecretBytes),
        adapter=adapter,
        group=_words(conf, "group"),
        title=_words(conf, "title"),
        was=_former_names(name, conf.get("was")),
    )
    try:
        variable.to_json(default)
        variable = replace(variable, default=adapter.validate_python(default))
        variable.to_json(variable.default)  # what is typed is validated twice, too
        return variable
    except ValueError as error:
        raise SchemaError(f"WAFFLE_CONFS[{name!r}]: the default is refused: {error}") from None


def _adapter(annotation: Any, config: ConfigDict | None) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=config)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model, which has its own


def _words(conf: Mapping[str, Any], key: str) -> str:
    words = conf.get(key)
    return "" if words is None else str(words)


def _former_names(name: str, was: object) -> tuple[str, ...]:
    if was is None:
        return ()
    names = [was] if isinstance(was, str) else was
    if not isinstance(names, Iterable) or not all(isinstance(former, str) for former in names):
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}]: 'was' must be a former name or a list of them, not {was!r}."
        )
    return tuple(_check_name(former) for former in names)


def _check_former_names(variables: Mapping[str, Variable]) -> None:
    claimed: dict[str, str] = {}
    for name, variable in variables.items():
        for former in variable.was:
            if former in variables:
                raise SchemaError(
                    f"WAFFLE_CONFS[{name!r}]: 'was' names {former!r}, which is declared. "
                    "A variable has either name: remove one."
                )
            if former in claimed:
                raise SchemaError(
                    f"WAFFLE_CONFS: {claimed[former]!r} and {name!r} both say that they were "
                    f"{former!r}. Its value can count for one of them only."
                )
            claimed[former] = name


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} can't be a variable's name; use letters, digits and"
            " underscores, as in 'SITENAME'."
        )
    if len(name) > MAX_NAME_LENGTH:
        raise SchemaError(f"WAFFLE_CONFS: {name[:40]!r}... is too long; choose another name.")
    if name.startswith(RESERVED_PREFIX) or hasattr(BaseModel, name) or name == "secret_names":
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} is reserved: it begins with {RESERVED_PREFIX} or is the name"
            " of a method of pydantic's models. Choose another."
        )
    return name
