"""``WAFFLE_CONFS`` turned into types: what may be stored, and how it is read back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo

from .errors import InvalidValue, SchemaError, UnknownVariable
from .frozen import freeze
from .variable import Variable, contains_secret, format_location, infer_type, validator_error

__all__ = ["MASK", "RESERVED_PREFIX", "Schema", "Values", "Variable"]

log = logging.getLogger("uwsgi_waffle")

MASK = "********"
RESERVED_PREFIX = "WAFFLE_"
MAX_NAME_LENGTH = 255
LEGACY_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "json": JsonValue,
}
NOTHING: Mapping[str, Any] = MappingProxyType({})
DECLARATION_KEYS = ("desc", "default", "type", "secret")
CONFIG = ConfigDict(
    frozen=True,
    extra="ignore",
    hide_input_in_errors=True,
    protected_namespaces=(),
    validate_by_alias=False,
    validate_by_name=True,
    arbitrary_types_allowed=False,
)


class Values(BaseModel):
    """The variables of one revision: ``values.SITENAME`` or ``values["SITENAME"]``. Frozen.

    So are the lists, dictionaries and sets among the values, which all code of the process shares:
    changing one in place raises `ManagedVariable`. A copy of it can be changed.
    """

    model_config = CONFIG
    secret_names: ClassVar[frozenset[str]] = frozenset()

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise UnknownVariable(
                f"{name!r} is not declared in WAFFLE_CONFS. Declare it, or correct the name."
            ) from None

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, MASK if name in self.secret_names else value


class Schema:
    """All declared variables, and the frozen model that validates them together."""

    def __init__(self, variables: Mapping[str, Variable], model: type[BaseModel]) -> None:
        self.variables = dict(variables)
        self.model = model
        self.secrets = frozenset(name for name, variable in variables.items() if variable.secret)
        texts = ",".join(
            f'"{name}":{variable.to_json(variable.default)}' for name, variable in variables.items()
        )
        self.defaults = self.load(f"{{{texts}}}")
        # The model's validators may have changed a default: every process uses the result.
        for name, field in model.model_fields.items():
            field.default, field.default_factory = getattr(self.defaults, name), None
        model.model_rebuild(force=True)

    @classmethod
    def declare(cls, confs: object, configured: Mapping[str, Any] = NOTHING) -> Schema:
        """Read ``WAFFLE_CONFS``: a dictionary of declarations or a pydantic model.

        Args:
            confs: the declarations.
            configured: has the defaults of those that declare none: ``app.config``.

        Raises:
            SchemaError: naming the variable and what is wrong with it.
        """
        try:
            if isinstance(confs, type) and issubclass(confs, BaseModel):
                return cls._from_model(confs, configured)
            if isinstance(confs, Mapping):
                return cls._from_mapping(confs, configured)
        except InvalidValue as error:
            raise SchemaError(
                f"WAFFLE_CONFS: the defaults don't pass their own validation: {error.problems}"
            ) from None
        raise SchemaError(
            f"WAFFLE_CONFS must be a dictionary or a pydantic model, not {type(confs).__name__}."
        )

    @classmethod
    def _from_mapping(cls, confs: Mapping[Any, Any], configured: Mapping[str, Any]) -> Schema:
        variables = {
            name: _from_declaration(name, conf, configured) for name, conf in confs.items()
        }
        untyped = [v.name for v in variables.values() if v.default is None and v.type is JsonValue]
        untyped = [name for name in untyped if confs[name].get("type") is None]
        if untyped:
            log.warning(
                "uwsgi_waffle: WAFFLE_CONFS gives %s neither a type nor a default but None, so any "
                "JSON fits: 123456 becomes a number. Declare, for instance, 'type': str | None.",
                ", ".join(map(repr, untyped)),
            )
        fields: dict[str, Any] = {
            v.name: (v.type, FieldInfo(default=v.default)) for v in variables.values()
        }
        base = type("Values", (Values,), _namespace(variables, __name__, Values.__doc__))
        return cls(variables, create_model("Values", __base__=base, **fields))

    @classmethod
    def _from_model(cls, model: type[BaseModel], configured: Mapping[str, Any]) -> Schema:
        variables = {
            name: _from_field(name, field, configured) for name, field in model.model_fields.items()
        }
        namespace = _namespace(variables, model.__module__, model.__doc__)
        metaclass: type[type] = type(model)  # pydantic's, or one of the application's own
        return cls(variables, metaclass(model.__name__, (Values, model), namespace))

    def variable(self, name: str) -> Variable:
        """Return a declared variable.

        Raises:
            UnknownVariable: it isn't declared.
        """
        try:
            return self.variables[name]
        except KeyError:
            known = ", ".join(sorted(self.variables)) or "none"
            raise UnknownVariable(
                f"{name!r} is not declared in WAFFLE_CONFS (declared: {known})."
                " Nothing was changed."
            ) from None

    def load(self, values: bytes | str) -> BaseModel:
        """Read one JSON object of stored values; a variable that it lacks has its default.

        Raises:
            InvalidValue: naming every variable whose value the schema rejects.
        """
        try:
            loaded: BaseModel = freeze(self.model.model_validate_json(values))
            return loaded
        except ValidationError as error:
            errors = self._errors_by_name(error)
        except Exception as error:
            errors = {"": f"a {validator_error(error, secret=bool(self.secrets))}"}
        raise InvalidValue(errors, "The values don't fit the schema")

    def load_leniently(self, values: bytes | str) -> tuple[BaseModel, dict[str, str]]:
        """Read stored values like `load`, but use the default of each variable that doesn't fit.

        Returns:
            The values, and why by name for each variable that has its default instead of what is
            stored. ``""`` says why the values don't fit together: then all have their defaults.
        """
        errors: dict[str, str] = {}
        while True:
            try:
                return self.load(values), errors
            except InvalidValue as error:
                errors.update(error.problems)
            stored = {} if "" in errors else json.loads(values)
            fitting = {name: value for name, value in stored.items() if name not in errors}
            if len(fitting) == len(stored):
                return self.defaults, errors
            values = json.dumps(fitting)

    def _errors_by_name(self, error: ValidationError) -> dict[str, str]:
        errors: dict[str, str] = {}
        for entry in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(entry["loc"][0]) if entry["loc"] else ""
            hidden = name in self.secrets or (not name and self.secrets)
            reason = entry["type"] if hidden else entry["msg"] + format_location(entry["loc"][1:])
            errors[name] = f"{errors[name]}; {reason}" if name in errors else reason
        return errors


def _namespace(
    variables: Mapping[str, Variable], module: str, doc: str | None
) -> dict[str, object]:
    secrets = frozenset(name for name, variable in variables.items() if variable.secret)
    return {
        "__module__": module,
        "__doc__": doc,
        "model_config": CONFIG,
        "secret_names": secrets,
    }


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} can't be a variable's name; use letters, digits and"
            " underscores, as in 'SITENAME'."
        )
    if name.startswith(RESERVED_PREFIX):
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} is reserved: names that start with {RESERVED_PREFIX} are the"
            " package's own."
        )
    if len(name) > MAX_NAME_LENGTH or hasattr(Values, name):
        raise SchemaError(
            f"WAFFLE_CONFS: {name[:40]!r} is too long or the name of a method; choose another."
        )
    return name


def _from_declaration(name: object, conf: object, configured: Mapping[str, Any]) -> Variable:
    name = _check_name(name)
    if not isinstance(conf, Mapping):
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}] must be a dictionary with 'desc' and 'default', not {conf!r}."
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
    desc, secret = str(conf.get("desc", "")), bool(conf.get("secret"))
    return _variable(name, desc, annotation or infer_type(default), default, secret)


def _from_field(name: str, info: FieldInfo, configured: Mapping[str, Any]) -> Variable:
    _check_name(name)
    annotation: Any = info.annotation
    for metadata in info.metadata:
        annotation = Annotated[annotation, metadata]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if info.is_required():
        default = _configured(name, configured)
    else:
        default = info.get_default(call_default_factory=True, validated_data={})
    return _variable(name, info.description or "", annotation, default, bool(extra.get("secret")))


def _configured(name: str, configured: Mapping[str, Any]) -> Any:
    if name not in configured:
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} needs a default, there or as app.config[{name!r}]."
        )
    return configured[name]


def _variable(name: str, desc: str, annotation: Any, default: Any, secret: bool) -> Variable:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}]: pydantic can't validate {annotation!r}: {error}"
        ) from error
    secret = secret or contains_secret(annotation)
    variable = Variable(name, desc, annotation, default, secret, adapter)
    try:
        variable.to_json(default)
        return replace(variable, default=adapter.validate_python(default))
    except ValueError as error:
        raise SchemaError(f"WAFFLE_CONFS[{name!r}]: the default is refused: {error}") from None
