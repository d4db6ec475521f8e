"""``WAFFLE_CONFS`` turned into types: what may be stored, and how it is read back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from .declarations import RESERVED_PREFIX, from_mapping, from_model
from .errors import InvalidValue, PinnedVariable, SchemaError, UnknownVariable
from .frozen import freeze
from .pins import Pin
from .variable import Variable, format_location, validator_error

__all__ = ["MASK", "RESERVED_PREFIX", "Schema", "Values", "Variable"]

MASK = "********"
ASSIGNED = "{} is assigned, and the values are frozen; return self.model_copy(update=...) instead"
NOTHING: Mapping[str, Any] = MappingProxyType({})
CONFIG = ConfigDict(
    frozen=True,
    extra="ignore",
    hide_input_in_errors=True,
    protected_namespaces=(),
    alias_generator=None,
    populate_by_name=True,
    arbitrary_types_allowed=False,
    allow_inf_nan=False,
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
            raise _unknown(name, self.__dict__) from None

    def __contains__(self, name: object) -> bool:
        return name in type(self).model_fields

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, MASK if name in self.secret_names else value


class Schema:
    """All declared variables, and the frozen model that validates them together.

    Attributes:
        variables: in the order of their declaration.
        model: validates all values together.
        defaults: the values where nothing is stored or pinned.
        secrets: the names of those that are secret.
        pins: what the environment gives some of them, by name.
        unpinned: the same without that.
    """

    def __init__(self, variables: Mapping[str, Variable], model: type[Values]) -> None:
        self.variables = dict(variables)
        self.model = model
        self.secrets = frozenset(name for name, variable in variables.items() if variable.secret)
        model.secret_names = self.secrets
        self.pins: Mapping[str, Pin] = NOTHING
        self.unpinned = self
        self._renamed = {name: variable for name, variable in variables.items() if variable.was}
        texts = ",".join(
            f'"{name}":{variable.dump(variable.default)}' for name, variable in variables.items()
        )
        self.defaults = self.load(f"{{{texts}}}")
        # The model's validators may have changed a default: every process uses the result.
        for name, field in model.model_fields.items():
            self.text_of(self.defaults, name)
            field.default, field.default_factory = self.defaults.__dict__[name], None
            field.alias = field.validation_alias = None  # the store has names
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
        instance = f"an instance of {type(confs).__name__}"
        found = confs.__name__ if isinstance(confs, type) else instance
        raise SchemaError(
            f"WAFFLE_CONFS must be a dictionary or the class of a pydantic model, not {found}."
        )

    @classmethod
    def _from_mapping(cls, confs: Mapping[Any, Any], configured: Mapping[str, Any]) -> Schema:
        variables = from_mapping(confs, configured)
        fields: dict[str, Any] = {
            v.name: (v.type, FieldInfo(default=v.default)) for v in variables.values()
        }
        model = create_model(
            "Values", __base__=Values, __module__=__name__, __doc__=Values.__doc__, **fields
        )
        return cls(variables, model)

    @classmethod
    def _from_model(cls, model: type[BaseModel], configured: Mapping[str, Any]) -> Schema:
        # Text from a form becomes a number; what is read from the store is judged as it says.
        config: ConfigDict = {**model.model_config, **CONFIG, "strict": False}
        variables = from_model(model, configured, config)
        namespace: dict[str, object] = {"model_config": CONFIG, "__doc__": model.__doc__}
        namespace["__module__"] = model.__module__
        metaclass: type[type] = type(model)  # pydantic's, or one of the application's own
        return cls(variables, metaclass(model.__name__, (Values, model), namespace))

    def pinned(self, pins: Mapping[str, Pin]) -> Schema:
        """Return a schema in which these values win over all that is stored.

        Raises:
            SchemaError: one is refused; the text names the environment variable.
        """
        schema = copy.copy(self)
        schema.pins = pins
        try:
            schema.load("{}")
        except InvalidValue as error:
            # Together with stored values they may fit.
            for name in error.problems.keys() & pins.keys():
                raise SchemaError(
                    f"{pins[name].source} can't be the value of {name!r}: {error.problems[name]}."
                ) from None
        return schema

    def variable(self, name: str) -> Variable:
        """Return a declared variable.

        Raises:
            UnknownVariable: it isn't declared.
        """
        try:
            return self.variables[name]
        except KeyError:
            raise _unknown(name, self.variables) from None

    def check(self, names: Iterable[str]) -> None:
        """Raise `UnknownVariable` if one of these isn't declared."""
        for name in names:
            self.variable(name)

    def changeable(self, name: str) -> Variable:
        """Return a declared variable that this process may change.

        Raises:
            UnknownVariable: it isn't declared.
            PinnedVariable: the environment pins it.
        """
        variable = self.variable(name)
        if name in self.pins:
            source = self.pins[name].source
            raise PinnedVariable(
                f"{name!r} is pinned by the environment variable {source}, so nothing was changed. "
                f"Change it there and restart, or unset {source}."
            )
        return variable

    @property
    def former_names(self) -> dict[str, str]:
        """The name of the variable by each of its former names."""
        return {former: name for name, v in self._renamed.items() for former in v.was}

    def source(self, name: str, stored: Mapping[str, Any]) -> str:
        """Return the name under which the value of a variable is stored.

        While rows under former names exist, each update writes them, too. One that differs was
        written later, by code that knows the variable by that name.
        """
        formers = self._renamed[name].was if name in self._renamed else ()
        differing = (f for f in formers if f in stored and stored[f] != stored.get(name))
        return next(differing, name)

    def families(self, stored: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return all names of each renamed variable, the present one first, by its `source`."""
        return {self.source(name, stored): (name, *v.was) for name, v in self._renamed.items()}

    def load(self, values: bytes | str) -> BaseModel:
        """Read one JSON object of stored values; a variable that it lacks has its default.

        Raises:
            InvalidValue: naming every variable whose value the schema rejects.
        """
        return self._load(self._in_force(values))

    def _in_force(self, values: bytes | str) -> bytes | str:
        """Return stored values with those of former names, and with those that are pinned."""
        if not self.pins and not self._renamed:
            return values
        stored = json.loads(values)
        texts = {name: json.dumps(value) for name, value in stored.items()}
        for source, (name, *_) in self.families(texts).items():
            if source != name:
                stored[name] = stored[source]
        stored |= {name: json.loads(pin.text) for name, pin in self.pins.items()}
        return json.dumps(stored)

    def _load(self, values: bytes | str) -> BaseModel:
        try:
            loaded: BaseModel = freeze(self.model.model_validate_json(values))
            return loaded
        except ValidationError as error:
            errors = self._errors_by_name(error)
        except Exception as error:
            errors = {"": f"a {validator_error(error, secret=bool(self.secrets))}"}
        raise InvalidValue(errors, "The values don't fit the schema")

    def text_of(self, values: BaseModel, name: str) -> str:
        """Return the JSON text of a variable's value.

        Raises:
            InvalidValue: a validator has made something else of it than its type.
        """
        try:
            # An attribute that is deprecated would warn of whoever reads it.
            return self.variables[name].dump(values.__dict__[name])
        except ValueError as error:
            raise InvalidValue({name: f"what its validator returns {error}"}) from None

    def load_leniently(self, values: bytes | str) -> tuple[BaseModel, dict[str, str]]:
        """Read stored values like `load`, but use the default of each variable that doesn't fit.

        Returns:
            The values, and why by name for each variable that has its default instead of what is
            stored. ``""`` says why the values don't fit together: then all have their defaults.
        """
        errors: dict[str, str] = {}
        values = self._in_force(values)
        while True:
            try:
                return self._load(values), errors
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
            if entry["type"] == "frozen_instance":
                errors[""] = ASSIGNED.format(name)
                continue
            hidden = name in self.secrets or (not name and self.secrets)
            reason = entry["type"] if hidden else entry["msg"] + format_location(entry["loc"][1:])
            errors[name] = f"{errors[name]}; {reason}" if name in errors else reason
        return errors


def _unknown(name: object, known: Iterable[str]) -> UnknownVariable:
    close = get_close_matches(str(name), known) or get_close_matches(str(name).upper(), known)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"declared: {', '.join(sorted(known)) or 'none'}"
    )
    return UnknownVariable(
        f"{name!r} is not declared in WAFFLE_CONFS ({hint}). Declare it, or correct the name. "
        "Nothing was done."
    )
