"""`WAFFLE_CONFS` becomes types; what doesn't fit is refused with the variable's name, a secret
never with its value.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NewType

import pytest
from annotated_types import Gt
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypeAliasType

from uwsgi_waffle import InvalidValue, SchemaError, UnknownVariable
from uwsgi_waffle.schema import MASK, Schema, Variable

SECRET = "geheim"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Page(BaseModel):
    """What a page shows."""

    size: int = Field(default=10, gt=0, description="Rows of a page")
    largest: int = 100
    title: str = "Waffle"

    @field_validator("title")
    @classmethod
    def shout(cls, title: str) -> str:
        if title == "forbidden":
            raise ValueError("such a title is forbidden")
        return title.upper()

    @model_validator(mode="after")
    def check_together(self) -> Page:
        if self.size > self.largest:
            raise ValueError("size is above largest")
        return self

    def double(self) -> int:
        return 2 * self.size


def declare(default: Any, **declaration: Any) -> Variable:
    """Declare one variable, X."""
    return Schema.declare({"X": {"default": default, **declaration}}).variable("X")


def dumped(**values: Any) -> str:
    return json.dumps(values)


def load(schema: Schema, text: str = "{}") -> Any:
    """Load values as what they are known to be at run time only."""
    return schema.load(text)


class TestDictionary:
    def test_defaults_are_the_values_of_an_empty_store(self) -> None:
        schema = Schema.declare({"A": {"desc": "a number", "default": 1}, "B": {"default": "b"}})
        assert schema.load("{}") == schema.defaults
        assert (load(schema).A, load(schema)["B"]) == (1, "b")
        assert [(v.name, v.desc) for v in schema.variables.values()] == [
            ("A", "a number"),
            ("B", ""),
        ]

    def test_no_variable_at_all_is_allowed(self) -> None:
        assert Schema.declare({}).variables == {}

    @pytest.mark.parametrize(
        ("name", "default", "good", "bad"),
        [
            ("str", "a", '"b"', "5"),
            ("int", 1, "5", '"x"'),
            ("float", 1.5, "2.5", '"x"'),
            ("bool", True, "false", '"x"'),
            ("json", {"a": [1]}, '[null,{"b":2}]', None),
        ],
    )
    def test_the_old_names_of_types_are_understood(
        self, name: str, default: Any, good: str, bad: str | None
    ) -> None:
        schema = Schema.declare({"X": {"desc": "", "default": default, "type": name}})
        assert load(schema)["X"] == default
        assert load(schema, f'{{"X":{good}}}')["X"] == json.loads(good)
        if bad is not None:
            with pytest.raises(InvalidValue, match="X"):
                schema.load(f'{{"X":{bad}}}')

    @pytest.mark.parametrize(
        ("default", "good", "bad"),
        [
            (1, 2, "x"),
            (1.5, 2.5, "x"),
            (False, True, "x"),
            ("a", "b", 5),
            ([1], ["a", None], {}),
            ({"a": 1}, {"b": [None]}, []),
            (Colour.RED, Colour.BLUE, "green"),
            (datetime.date(2024, 2, 29), datetime.date(2025, 1, 1), "x"),
            (decimal.Decimal("1.10"), decimal.Decimal("2.20"), "x"),
            (datetime.timedelta(seconds=1), datetime.timedelta(days=2), "x"),
            (PurePosixPath("/a"), PurePosixPath("/b"), 5),
            (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv4Address("10.0.0.1"), "x"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_the_type_is_inferred_from_the_default(self, default: Any, good: Any, bad: Any) -> None:
        variable = declare(default)
        assert variable.adapter.validate_json(variable.to_json(good)) == good
        with pytest.raises(ValueError, match="not "):
            variable.to_json(bad)

    @pytest.mark.parametrize("value", [None, 1, "a", [1, {"a": None}]])
    def test_a_default_of_none_takes_any_json(self, value: Any) -> None:
        assert json.loads(declare(None).to_json(value)) == value

    def test_a_type_may_be_anything_that_pydantic_validates(self) -> None:
        variable = declare(10, type=Annotated[int, Gt(0)])
        assert variable.to_json(5) == "5"
        with pytest.raises(ValueError, match="greater than 0, not -5"):
            variable.to_json(-5)
        assert declare(None, type=int | None).to_json(None) == "null"
        assert declare("a", type=Literal["a", "b"]).to_json("b") == '"b"'

    def test_values_are_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            load(Schema.declare({"A": {"default": 1}})).A = 2

    def test_what_is_not_declared_is_left_out(self) -> None:
        values = Schema.declare({"A": {"default": 1}}).load('{"A":2,"GONE":3}')
        assert dict(values) == {"A": 2}

    def test_names_can_be_looked_for(self) -> None:
        values = Schema.declare({"A": {"default": 1}}).defaults
        assert ("A" in values, "B" in values) == (True, False)

    def test_an_unknown_name_says_what_is_known(self) -> None:
        schema = Schema.declare({"B": {"default": 1}, "A": {"default": 1}})
        with pytest.raises(
            UnknownVariable, match=r"^'C' is not declared in WAFFLE_CONFS \(declared: A, B\)"
        ):
            schema.variable("C")
        with pytest.raises(UnknownVariable, match="'C' is not declared"):
            load(schema)["C"]

    @pytest.mark.parametrize(
        ("name", "meant"), [("SITENAM", "SITENAME"), ("sitename", "SITENAME"), ("ton", "tone")]
    )
    def test_a_misspelt_name_says_which_is_meant(self, name: str, meant: str) -> None:
        names = ("SITENAME", "LIMIT", "tone")
        schema = Schema.declare({known: {"default": 1} for known in names})
        for read in (schema.variable, load(schema).__getitem__):
            with pytest.raises(UnknownVariable, match=rf"\(did you mean {meant}\?\)") as caught:
                read(name)
            assert "Nothing was changed" not in str(caught.value), "nobody has tried to"

    @pytest.mark.parametrize("name", ["model_config", "__class__", "secret_names"])
    def test_subscription_reaches_nothing_but_variables(self, name: str) -> None:
        with pytest.raises(UnknownVariable):
            load(Schema.declare({"A": {"default": 1}}))[name]


class TestModel:
    def test_values_are_a_frozen_instance_of_it(self) -> None:
        values = load(Schema.declare(Page), dumped(size=20))
        assert values["size"] == 20
        assert isinstance(values, Page)
        assert (values.size, values.largest, values.double()) == (20, 100, 40)
        with pytest.raises(ValidationError, match="frozen"):
            values.size = 5
        Page().size = 5  # the user's own class stays as it was

    def test_its_fields_are_the_variables(self) -> None:
        schema = Schema.declare(Page)
        assert [(v.name, v.desc, v.secret) for v in schema.variables.values()] == [
            ("size", "Rows of a page", False),
            ("largest", "", False),
            ("title", "", False),
        ]

    def test_its_validators_see_all_values_together(self) -> None:
        schema = Schema.declare(Page)
        assert load(schema, dumped(size=150, largest=200)).size == 150
        with pytest.raises(InvalidValue) as caught:
            schema.load(dumped(size=150))
        assert list(caught.value.problems) == [""]

    def test_its_field_validators_run(self) -> None:
        schema = Schema.declare(Page)
        assert load(schema, dumped(title="new")).title == "NEW"
        with pytest.raises(InvalidValue, match=r"title: .*such a title is forbidden"):
            schema.load(dumped(title="forbidden"))

    def test_constraints_of_fields_hold(self) -> None:
        with pytest.raises(ValueError, match="greater than 0"):
            Schema.declare(Page).variable("size").to_json(0)

    def test_a_default_factory_is_called(self) -> None:
        class Made(BaseModel):
            names: list[str] = Field(default_factory=lambda: ["a"])

        assert load(Schema.declare(Made)).names == ["a"]

    def test_a_field_may_be_declared_secret(self) -> None:
        class Keys(BaseModel):
            key: str = Field(default="", json_schema_extra={"secret": True})

        assert Schema.declare(Keys).secrets == {"key"}

    @pytest.mark.parametrize(
        ("field", "config"),
        [
            ({"alias": "sizeAlias"}, {}),
            ({"validation_alias": AliasChoices("sizeAlias", "other")}, {}),
            ({}, {"alias_generator": lambda name: f"{name}Alias"}),
        ],
    )
    def test_aliases_are_not_names_in_the_store(
        self, field: dict[str, Any], config: ConfigDict
    ) -> None:
        class Aliased(BaseModel):
            model_config = config
            size: int = Field(default=1, **field)

        schema = Schema.declare(Aliased)
        assert load(schema, dumped(size=2, sizeAlias=3)).size == 2
        assert load(schema, dumped(sizeAlias=3)).size == 1

    def test_defaults_must_pass_the_validators(self) -> None:
        class Wrong(Page):
            size: int = 1000

        class Forbidden(Page):
            title: str = "forbidden"

        with pytest.raises(SchemaError, match="size is above largest"):
            Schema.declare(Wrong)
        with pytest.raises(SchemaError, match="title"):
            Schema.declare(Forbidden)


class Opaque:
    """What pydantic knows nothing of."""


class WithoutDefault(BaseModel):
    NEEDED: int


class TestBadDeclarations:
    @pytest.mark.parametrize(
        ("confs", "error"),
        [
            ({"SIZE": 5}, "'SIZE'.*must be a dictionary such as .*, not int"),
            ({"SIZE": {"desc": "x"}}, "'SIZE' needs a default"),
            ({"SIZE": {"default": 1, "typ": int}}, "'SIZE'.*unknown keys.*'typ'"),
            ({"SIZE": {"default": 1, 5: 6}}, "'SIZE'.*unknown keys.*'5'"),
            ({"SIZE": {"default": 1, "type": "integer"}}, "'SIZE'.*unknown type 'integer'"),
            ({"SIZE": {"default": 1, "type": object()}}, "'SIZE'.*pydantic can't validate"),
            ({"SIZE": {"default": Opaque()}}, "'SIZE'.*pydantic can't validate"),
            ({"SIZE": {"default": "x", "type": int}}, "'SIZE'.*default is refused.*not 'x'"),
            (
                {"SIZE": {"default": -1, "type": Annotated[int, Gt(0)]}},
                "'SIZE'.*default is refused",
            ),
            ({"SIZE": {"default": float("nan")}}, "'SIZE'.*default is refused.*JSON"),
            ({"SIZE": {"default": b"\xff"}}, "'SIZE'.*default is refused"),
            ({"SIZE": {"default": {1, (2,)}, "type": Any}}, "'SIZE'.*default is refused"),
            ({"WAFFLE_SIZE": {"default": 1}}, "'WAFFLE_SIZE' is reserved"),
            ({"MAX SIZE": {"default": 1}}, "'MAX SIZE' can't be a variable's name"),
            ({"": {"default": 1}}, "'' can't be a variable's name"),
            ({"1ST": {"default": 1}}, "'1ST' can't be a variable's name"),
            ({"_SIZE": {"default": 1}}, "'_SIZE' can't be a variable's name"),
            ({7: {"default": 1}}, "7 can't be a variable's name"),
            ({"model_dump": {"default": 1}}, "'model_dump'.*name of a method"),
            ({"copy": {"default": 1}}, "'copy'.*name of a method"),
            ({"secret_names": {"default": 1}}, "'secret_names'"),
            ({"S" * 256: {"default": 1}}, "'SSSS.*too long"),
            (WithoutDefault, "'NEEDED' needs a default"),
            (["SIZE"], "must be a dictionary or .*, not an instance of list"),
            (None, "must be a dictionary or .*, not an instance of NoneType"),
            (Page(), "must be .* the class of a pydantic model, not an instance of Page"),
            (PurePosixPath, "must be .* the class of a pydantic model, not PurePosixPath"),
        ],
    )
    def test_each_is_refused_by_name(self, confs: Any, error: str) -> None:
        with pytest.raises(SchemaError, match=f"WAFFLE_CONFS.*{error}"):
            Schema.declare(confs)

    def test_a_name_of_255_characters_is_allowed(self) -> None:
        assert "S" * 255 in Schema.declare({"S" * 255: {"default": 1}}).variables

    @pytest.mark.parametrize("annotation", [int, "int", Annotated[int, Gt(0)]])
    def test_a_refused_secret_default_is_not_shown(self, annotation: Any) -> None:
        with pytest.raises(SchemaError, match="TOKEN") as caught:
            Schema.declare({"TOKEN": {"default": SECRET, "type": annotation, "secret": True}})
        assert SECRET not in str(caught.value)


class TestLoading:
    def test_all_problems_are_collected(self) -> None:
        schema = Schema.declare({name: {"default": 1} for name in "ABC"})
        with pytest.raises(InvalidValue) as caught:
            schema.load(dumped(A="x", B=2, C=None))
        assert list(caught.value.problems) == ["A", "C"]
        assert "A: " in str(caught.value)
        assert "C: " in str(caught.value)

    def test_several_problems_of_one_value_are_told_with_their_places(self) -> None:
        schema = Schema.declare({"A": {"default": [1], "type": list[int]}})
        with pytest.raises(InvalidValue, match=r"at 0; .* at 2"):
            schema.load(dumped(A=["x", 1, "y"]))

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"A":NaN}', b"\xff"])
    def test_what_is_not_an_object_is_refused(self, text: str | bytes) -> None:
        with pytest.raises(InvalidValue, match="don't fit the schema"):
            Schema.declare({"A": {"default": 1}}).load(text)


class TestLenientLoading:
    """The command line that repairs a value runs although the value doesn't fit."""

    def test_values_that_fit_are_loaded_as_ever(self) -> None:
        schema = Schema.declare(Page)
        assert schema.load_leniently(dumped(size=20)) == (schema.load(dumped(size=20)), {})

    def test_what_does_not_fit_has_its_default_and_the_reason(self) -> None:
        schema = Schema.declare({name: {"default": 1} for name in "ABC"})
        values, errors = schema.load_leniently(dumped(A="x", B=2, C=None, GONE=3))
        assert dict(values) == {"A": 1, "B": 2, "C": 1}
        assert set(values.model_fields_set) == {"B"}
        assert list(errors) == ["A", "C"]
        assert "valid integer" in errors["A"]

    @pytest.mark.parametrize(
        "text", [dumped(size=150, title="new"), dumped(size=150, title="forbidden"), "[]", "{", ""]
    )
    def test_values_that_do_not_fit_together_all_have_their_defaults(self, text: str) -> None:
        schema = Schema.declare(Page)
        values, errors = schema.load_leniently(text)
        assert values == schema.defaults
        assert errors[""]

    def test_a_validator_that_can_not_be_satisfied_ends_with_the_defaults(self) -> None:
        """It rejects a variable for what another one holds, so leaving one out is no help."""

        class Spoilt(BaseModel):
            A: int = 1
            B: int = 1

            @model_validator(mode="before")
            @classmethod
            def spoil(cls, stored: dict[str, Any]) -> dict[str, Any]:
                return {**stored, "B": "x"} if stored["A"] == 2 else stored

        schema = Schema.declare(Spoilt)
        values, errors = schema.load_leniently(dumped(A=2))
        assert values == schema.defaults
        assert list(errors) == ["B"]

    def test_a_secret_is_not_shown(self) -> None:
        schema = Schema.declare({"TOKEN": {"default": 1, "secret": True}})
        assert SECRET not in repr(schema.load_leniently(dumped(TOKEN=SECRET)))


class TestSecrets:
    @pytest.mark.parametrize(
        "declaration",
        [
            {"default": "", "secret": True},
            {"default": SecretStr("")},
            {"default": "", "type": SecretStr},
            {"default": "", "type": Annotated[SecretStr, Field(max_length=100)]},
            {"default": None, "type": SecretStr | None},
            {"default": "", "type": type("Token", (SecretStr,), {})},
            {"default": "", "type": NewType("Token", SecretStr)},
            {"default": None, "type": TypeAliasType("Token", SecretStr) | None},
            {"default": b"", "type": SecretBytes},
        ],
        ids=[
            "secret",
            "inferred",
            "SecretStr",
            "annotated",
            "optional",
            "subclass",
            "NewType",
            "alias",
            "SecretBytes",
        ],
    )
    def test_it_is_masked_and_stored_in_plain(self, declaration: dict[str, Any]) -> None:
        schema = Schema.declare({"TOKEN": declaration})
        text = schema.variable("TOKEN").to_json(SECRET)
        assert text == f'"{SECRET}"', "the store needs the value itself"
        values = schema.load(f'{{"TOKEN":{text}}}')
        assert SECRET not in repr(values) + str(values)
        assert schema.secrets == {"TOKEN"}

    def test_a_secret_field_of_a_model_is_masked(self) -> None:
        class Keys(BaseModel):
            plain: str = ""
            marked: str = Field(default="", json_schema_extra={"secret": True})
            typed: SecretStr = SecretStr("")
            optional: SecretStr | None = None

        schema = Schema.declare(Keys)
        values = schema.load(dumped(plain="seen", marked=SECRET, typed=SECRET, optional=SECRET))
        assert SECRET not in repr(values)
        assert "seen" in repr(values)
        assert MASK in repr(values)
        assert schema.secrets == {"marked", "typed", "optional"}

    @pytest.mark.parametrize("value", [SECRET, [SECRET], {SECRET: 1}])
    def test_a_refused_one_is_not_shown(self, value: Any) -> None:
        schema = Schema.declare({"TOKEN": {"default": 1, "secret": True}, "OPEN": {"default": 1}})
        with pytest.raises(ValueError, match="refused") as python:
            schema.variable("TOKEN").to_json(value)
        with pytest.raises(InvalidValue) as stored:
            schema.load(dumped(TOKEN=value, OPEN="seen"))
        for caught in (python, stored):
            assert SECRET not in str(caught.value)
            assert caught.value.__cause__ is None
        assert list(stored.value.problems) == ["TOKEN", "OPEN"]

    @pytest.mark.parametrize("value", [f"{SECRET}\ud800", {SECRET: object()}, {1, SECRET}])
    def test_one_that_json_can_not_hold_is_not_shown(self, value: Any) -> None:
        with pytest.raises(ValueError, match="JSON") as caught:
            declare(None, type=Any, secret=True).to_json(value)
        assert SECRET not in str(caught.value)

    def test_a_validator_that_reveals_it_is_not_passed_on(self) -> None:
        class Keys(BaseModel):
            first: SecretStr = SecretStr("")
            second: str = ""

            @model_validator(mode="after")
            def reveal(self) -> Keys:
                if self.first.get_secret_value():
                    raise ValueError(f"{self.first.get_secret_value()} is wrong")
                return self

        with pytest.raises(InvalidValue) as caught:
            Schema.declare(Keys).load(dumped(first=SECRET))
        assert SECRET not in str(caught.value)
