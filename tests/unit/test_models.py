"""A pydantic model in `WAFFLE_CONFS` works as pydantic's own documentation says."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from pydantic import (
    AliasChoices,
    Base64Str,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    computed_field,
)
from pydantic.alias_generators import to_camel

from uwsgi_waffle import SchemaError
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


@pytest.mark.parametrize(
    ("annotation", "default"), [(Json[list[int]], "[1]"), (Base64Str, "aGVsbG8=")], ids=repr
)
def test_a_type_that_refuses_its_own_values_is_refused(annotation: Any, default: Any) -> None:
    with pytest.raises(SchemaError, match=r"WAFFLE_CONFS\['X'\]: the default is refused"):
        Schema.declare({"X": {"type": annotation, "default": default}})
