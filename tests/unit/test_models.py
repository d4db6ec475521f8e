"""A pydantic model in `WAFFLE_CONFS` works as pydantic's own documentation says."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    Base64Str,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    Tag,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from uwsgi_waffle import InvalidValue, SchemaError
from uwsgi_waffle.changes import changes_for_update
from uwsgi_waffle.schema import Schema
from uwsgi_waffle.stores import Stored


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class ByGenerator(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    max_size: int = 1


class ByAlias(BaseModel):
    max_size: int = Field(alias="maxSize")


class ByEither(BaseModel):
    max_size: int = Field(validation_alias=AliasChoices("maxSize", "max_size"))


class ForOutput(BaseModel):
    max_size: int = Field(serialization_alias="maxSize")


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int = 2

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation says
    @property
    def area(self) -> int:
        return self.side**2


class Small(BaseModel):
    size: int = 1


class Large(BaseModel):
    size: int = 10


def size_of(value: Any) -> str:
    return "small" if (value["size"] if isinstance(value, dict) else value.size) < 10 else "large"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    age: int = 1


def stored_by(confs: object, values: dict[str, Any]) -> Any:
    """Return what ``values`` are for an application that reads them from the store."""
    schema = Schema.declare(confs)
    texts = changes_for_update(schema, values)(Stored(0, {}))
    return schema.load("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}")


class TestConfig:
    """The model's configuration holds for single values, too."""

    def test_an_enumeration_may_be_used_by_value(self) -> None:
        class Site(BaseModel):
            model_config = ConfigDict(use_enum_values=True)
            COLOUR: Colour = Colour.RED

        assert stored_by(Site, {"COLOUR": Colour.BLUE}).COLOUR == "blue"

    @pytest.mark.skipif("val_json_bytes" not in ConfigDict.__annotations__, reason="pydantic 2.9")
    def test_bytes_may_be_base64_in_json(self) -> None:
        class Site(BaseModel):
            model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
            KEY: bytes = b"\xff\x00key"

        assert stored_by(Site, {}).KEY == b"\xff\x00key"
        assert stored_by(Site, {"KEY": b"abcd"}).KEY == b"abcd"

    def test_numbers_may_become_text(self) -> None:
        class Site(BaseModel):
            model_config = ConfigDict(coerce_numbers_to_str=True)
            NAME: str = "a"

        assert stored_by(Site, {"NAME": 5}).NAME == "5"

    def test_a_strict_model_takes_text_as_a_form_sends_it(self) -> None:
        class Site(BaseModel):
            model_config = ConfigDict(strict=True)
            COLOUR: Colour = Colour.RED
            LIMIT: int = 1

        values = stored_by(Site, {"COLOUR": "blue", "LIMIT": "5"})
        assert (values.COLOUR, values.LIMIT) == (Colour.BLUE, 5)


class TestModelsWithin:
    """A model may be the value of one variable, and is read back as it was."""

    @pytest.mark.parametrize("kind", [ByGenerator, ByAlias, ByEither, ForOutput])
    def test_it_may_have_aliases(self, kind: type[BaseModel]) -> None:
        three, four = (kind.model_validate({"maxSize": n, "max_size": n}) for n in (3, 4))
        confs = {"LIMITS": {"type": kind, "default": three}}
        assert stored_by(confs, {}).LIMITS.max_size == 3
        assert stored_by(confs, {"LIMITS": four}).LIMITS.max_size == 4

    def test_it_may_have_computed_fields(self) -> None:
        confs = {"AREA": {"type": Area, "default": Area()}}
        assert stored_by(confs, {"AREA": {"side": 3}}).AREA.area == 9


class TestValidators:
    """What they return is stored, and is what every process reads."""

    def test_one_may_change_a_value_once(self) -> None:
        class Site(BaseModel):
            PATH: str = "/"

            @field_validator("PATH")
            @classmethod
            def end(cls, path: str) -> str:
                return path.rstrip("/") + "/"

        assert stored_by(Site, {"PATH": "a"}).PATH == "a/"

    def test_one_that_changes_its_own_result_is_refused(self) -> None:
        class Site(BaseModel):
            PATH: str = ""

            @field_validator("PATH")
            @classmethod
            def end(cls, path: str) -> str:
                return path and path + "/"

        with pytest.raises(InvalidValue, match="PATH: a validator changes its own result"):
            stored_by(Site, {"PATH": "a"})

    def test_one_that_assigns_is_told_what_to_do(self) -> None:
        class Site(BaseModel):
            LOW: int = 1
            HIGH: int = 2

            @model_validator(mode="after")
            def lift(self) -> Site:
                if self.HIGH < self.LOW:
                    self.HIGH = self.LOW
                return self

        with pytest.raises(InvalidValue, match=r": HIGH is assigned.*model_copy") as caught:
            stored_by(Site, {"LOW": 3})
        assert caught.value.problems.keys() == {""}  # no stored value is at fault

    def test_one_may_return_a_changed_copy(self) -> None:
        class Site(BaseModel):
            LOW: int = 1
            HIGH: int = 2

            @model_validator(mode="after")
            def lift(self) -> Site:
                return self.model_copy(update={"HIGH": max(self.LOW, self.HIGH)})

        assert stored_by(Site, {"LOW": 3}).HIGH == 3

    @pytest.mark.parametrize("default", ["", "a,b"])
    def test_one_that_returns_another_type_is_refused(self, default: str) -> None:
        class Site(BaseModel):
            NAMES: str = default

            @field_validator("NAMES")
            @classmethod
            def split(cls, names: str) -> Any:
                return names.split(",") if names else names

        with pytest.raises((SchemaError, InvalidValue), match=r"NAMES.*what its validator returns"):
            stored_by(Site, {"NAMES": "a,b"})


class TestDiscriminator:
    """It says what a value is, where several types would take it."""

    def test_a_function_may_say_it(self) -> None:
        class Site(BaseModel):
            SHAPE: Annotated[Small, Tag("small")] | Annotated[Large, Tag("large")] = Field(
                default=Small(), discriminator=Discriminator(size_of)
            )

        assert isinstance(stored_by(Site, {"SHAPE": {"size": 5}}).SHAPE, Small)
        assert isinstance(stored_by(Site, {"SHAPE": {"size": 50}}).SHAPE, Large)

    def test_an_error_is_about_the_type_that_is_meant(self) -> None:
        class Site(BaseModel):
            PET: Cat | Dog = Field(default=Cat(), discriminator="kind")

        with pytest.raises(InvalidValue) as caught:
            stored_by(Site, {"PET": {"kind": "dog", "age": "old"}})
        assert "cat" not in str(caught.value).lower()


def test_a_deprecated_field_warns_who_reads_it_only() -> None:
    class Site(BaseModel):
        OLD: int = Field(default=1, deprecated="use NEW")
        NEW: int = 2

    values = stored_by(Site, {"OLD": 3, "NEW": 4})  # a warning would be an error here
    with pytest.warns(DeprecationWarning, match="use NEW"):
        assert values.OLD == 3


@pytest.mark.skipif(
    not hasattr(FieldInfo, "default_factory_takes_validated_data"), reason="pydantic 2.10"
)
def test_a_default_that_depends_on_other_values_is_refused() -> None:
    class Site(BaseModel):
        LOW: int = 1
        HIGH: int = Field(default_factory=lambda values: values["LOW"] + 1)

    with pytest.raises(SchemaError, match=r"'HIGH'.*can't depend on other values"):
        Schema.declare(Site)


@pytest.mark.parametrize(
    ("annotation", "default"), [(Json[list[int]], "[1]"), (Base64Str, "aGVsbG8=")], ids=repr
)
def test_a_type_that_refuses_its_own_values_is_refused(annotation: Any, default: Any) -> None:
    with pytest.raises(SchemaError, match=r"WAFFLE_CONFS\['X'\]: the default is refused"):
        Schema.declare({"X": {"type": annotation, "default": default}})
