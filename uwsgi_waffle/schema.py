"""``WAFFLE_CONFS`` turned into types: what may be stored, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    PydanticSchemaGenerationError,
    PydanticUserError,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from .errors import InvalidValue, SchemaError, UnknownVariable

__all__ = ["MASK", "RESERVED_PREFIX", "Schema", "Values", "Variable"]

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

    Lists and dictionaries among the values belong to the whole process: read them, don't change
    them in place.
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


@dataclass(frozen=True)
class Variable:
    """One declared variable."""

    name: str
    desc: str
    type: Any
    default: Any = dataclass_field(repr=False)  # it may be a secret
    secret: bool
    adapter: TypeAdapter[Any]

    def to_json(self, value: object) -> str:
        """Validate a Python value and return the JSON text that is stored for it.

        Raises:
            ValueError: the value isn't of the type, or JSON would not give it back; the text says
                why.
        """
        return self.dump(self._validate(value))

    def _validate(self, value: object) -> object:
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(self._explain(error, value)) from None
        except Exception as error:  # a validator of the application's own may raise anything
            told = "" if self.secret else f": {error}"
            raise ValueError(f"its validator failed with {type(error).__name__}{told}") from None

    def dump(self, validated: object) -> str:
        """Return the JSON text of a value that is already of the type."""
        try:
            plain = _reveal(validated) or self.adapter.dump_python(
                validated, mode="json", warnings="error"
            )
            text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
            same = self.adapter.validate_json(text) == validated
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                "can't be written as JSON" if self.secret else f"can't be written as JSON: {error}"
            ) from None
        if not same:
            raise ValueError(
                "changes when it is written as JSON and read back; choose a type that JSON can hold"
            )
        return text

    def load(self, plain: object) -> object:
        """Read a value as `json.loads` gives it.

        Raises:
            ValueError: it isn't of the type; the text says why.
        """
        try:
            return self.adapter.validate_json(json.dumps(plain))
        except ValidationError as error:
            raise ValueError(self._explain(error, plain)) from None
        except Exception as error:  # a validator of the application's own may raise anything
            raise ValueError(
                f"its validator failed with {type(error).__name__}"
                + ("" if self.secret else f": {error}")
            ) from None

    def parse(self, text: str) -> object:
        """Read what a person typed: JSON where the type takes it, else the text itself.

        Raises:
            ValueError: the text fits the type in neither way.
        """
        if not self._is_text():
            try:
                return self.adapter.validate_json(text)
            except ValidationError:  # not JSON of this type: the text itself may be
                pass
        return self._validate(text)

    def _is_text(self) -> bool:
        bare = self.type.__origin__ if get_origin(self.type) is Annotated else self.type
        return isinstance(bare, type) and issubclass(bare, (str, SecretStr))

    def _explain(self, error: ValidationError, value: object) -> str:
        if self.secret:
            return f"refused ({', '.join(e['type'] for e in error.errors())})"
        told = "; ".join(
            e["msg"] + _place(e["loc"])
            for e in error.errors(include_url=False, include_context=False)
        )
        shown = repr(value)
        return f"{told}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"


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
        for (
            name,
            field,
        ) in (
            model.model_fields.items()
        ):  # what their validators made of them; every process has the same
            field.default, field.default_factory = getattr(self.defaults, name), None
        model.model_rebuild(force=True)

    @classmethod
    def declare(cls, confs: object) -> Schema:
        """Read ``WAFFLE_CONFS``: a dictionary of declarations or a pydantic model.

        Raises:
            SchemaError: naming the variable and what is wrong with it.
        """
        try:
            if isinstance(confs, type) and issubclass(confs, BaseModel):
                return cls._from_model(confs)
            if isinstance(confs, Mapping):
                return cls._from_mapping(confs)
        except InvalidValue as error:
            raise SchemaError(
                f"WAFFLE_CONFS: the defaults don't pass their own validation: {error.problems}"
            ) from None
        raise SchemaError(
            f"WAFFLE_CONFS must be a dictionary or a pydantic model, not {type(confs).__name__}."
        )

    @classmethod
    def _from_mapping(cls, confs: Mapping[Any, Any]) -> Schema:
        variables = {name: _declared(name, declaration) for name, declaration in confs.items()}
        fields: dict[str, Any] = {
            v.name: (v.type, FieldInfo(default=v.default)) for v in variables.values()
        }
        secrets = frozenset(name for name, variable in variables.items() if variable.secret)
        base = type(
            "Values",
            (Values,),
            {"__module__": __name__, "secret_names": secrets, "__doc__": Values.__doc__},
        )
        return cls(variables, create_model("Values", __base__=base, **fields))

    @classmethod
    def _from_model(cls, model: type[BaseModel]) -> Schema:
        variables = {name: _field(name, field) for name, field in model.model_fields.items()}
        secrets = frozenset(name for name, variable in variables.items() if variable.secret)
        namespace = {
            "__module__": model.__module__,
            "__doc__": model.__doc__,
            "model_config": CONFIG,
            "secret_names": secrets,
        }
        kind: type[type] = type(model)  # pydantic's metaclass, or the model's own
        return cls(variables, kind(model.__name__, (Values, model), namespace))

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
                f"{name!r} is not declared in WAFFLE_CONFS (declared: {known}). Nothing was changed."
            ) from None

    def load(self, values: bytes | str) -> BaseModel:
        """Read one JSON object of stored values; what it doesn't hold has its default.

        Raises:
            InvalidValue: with every variable that the schema refuses.
        """
        try:
            return self.model.model_validate_json(values)
        except ValidationError as error:
            problems: dict[str, str] = {}
            for entry in error.errors(
                include_url=False, include_input=False, include_context=False
            ):
                name = str(entry["loc"][0]) if entry["loc"] else ""
                hidden = name in self.secrets or (not name and self.secrets)
                told = entry["type"] if hidden else entry["msg"] + _place(entry["loc"][1:])
                problems[name] = f"{problems[name]}; {told}" if name in problems else told
            raise InvalidValue(problems, "The values don't fit the schema") from None
        except Exception as error:  # a validator of the application's own may raise anything
            told = f"a validator failed with {type(error).__name__}" + (
                "" if self.secrets else f": {error}"
            )
            raise InvalidValue({"": told}, "The values don't fit the schema") from None


def _place(location: tuple[int | str, ...]) -> str:
    return f" at {'.'.join(map(str, location))}" if location else ""


def _reveal(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.get_secret_value().decode() if isinstance(value, SecretBytes) else None


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} can't be a variable's name; use letters, digits and underscores, as in 'SITENAME'."
        )
    if name.startswith(RESERVED_PREFIX):
        raise SchemaError(
            f"WAFFLE_CONFS: {name!r} is reserved: names that start with {RESERVED_PREFIX} are the package's own."
        )
    if len(name) > MAX_NAME_LENGTH or hasattr(Values, name):
        raise SchemaError(
            f"WAFFLE_CONFS: {name[:40]!r} is too long or the name of a method; choose another."
        )
    return name


def _declared(name: object, declaration: object) -> Variable:
    name = _check_name(name)
    if not isinstance(declaration, Mapping):
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}] must be a dictionary with 'desc' and 'default', not {declaration!r}."
        )
    unknown = sorted(str(key) for key in declaration if key not in DECLARATION_KEYS)
    if unknown:
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}] has unknown keys {unknown}; known are {list(DECLARATION_KEYS)}."
        )
    if "default" not in declaration:
        raise SchemaError(f"WAFFLE_CONFS[{name!r}] needs a 'default'.")
    default, wanted = declaration["default"], declaration.get("type")
    if isinstance(wanted, str):
        if wanted not in LEGACY_TYPES:
            raise SchemaError(
                f"WAFFLE_CONFS[{name!r}]: unknown type {wanted!r}; use a Python type or one of {sorted(LEGACY_TYPES)}."
            )
        wanted = LEGACY_TYPES[wanted]
    return _variable(
        name,
        str(declaration.get("desc", "")),
        wanted or _infer(default),
        default,
        bool(declaration.get("secret")),
    )


def _field(name: str, info: FieldInfo) -> Variable:
    _check_name(name)
    if info.is_required():
        raise SchemaError(f"WAFFLE_CONFS: field {name!r} needs a default.")
    annotation: Any = info.annotation
    for metadata in info.metadata:
        annotation = Annotated[annotation, metadata]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    secret = bool(extra.get("secret"))
    default = info.get_default(call_default_factory=True, validated_data={})
    return _variable(name, info.description or "", annotation, default, secret)


def _variable(name: str, desc: str, wanted: Any, default: Any, secret: bool) -> Variable:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(wanted)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        raise SchemaError(
            f"WAFFLE_CONFS[{name!r}]: pydantic can't validate {wanted!r}: {error}"
        ) from error
    variable = Variable(name, desc, wanted, default, secret or _holds_secret(wanted), adapter)
    try:
        variable.to_json(default)
        return replace(variable, default=adapter.validate_python(default))
    except ValueError as error:
        raise SchemaError(f"WAFFLE_CONFS[{name!r}]: the default is refused: {error}") from None


def _holds_secret(kind: Any, within: tuple[Any, ...] = ()) -> bool:
    if isinstance(kind, type) and issubclass(kind, (SecretStr, SecretBytes)):
        return True
    stands_for = [
        getattr(kind, name) for name in ("__supertype__", "__value__") if hasattr(kind, name)
    ]  # a NewType, a type alias
    return kind not in within and any(
        _holds_secret(part, (*within, kind)) for part in (*stands_for, *get_args(kind))
    )


def _infer(default: object) -> Any:
    if default is None:
        return JsonValue
    if isinstance(default, list):
        return list[JsonValue]
    return dict[str, JsonValue] if isinstance(default, dict) else type(default)
