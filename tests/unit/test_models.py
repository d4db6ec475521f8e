"""A pydantic model in `WAFFLE_CONFS` works as pydantic's own documentation says."""

from __future__ import annotations

import enum
from typing import Any

from pydantic import BaseModel, ConfigDict

from uwsgi_waffle.changes import changes_for_update
from uwsgi_waffle.schema import Schema
from uwsgi_waffle.stores import Stored


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def stored_by(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Return what ``values`` are for an application that reads them from the store."""
    schema = Schema.declare(model)
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
