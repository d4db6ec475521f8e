"""A value becomes JSON and comes back; what a person typed is read as the type needs."""

from __future__ import annotations

import datetime
import enum
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType

import pytest
from pydantic import AfterValidator, Field, JsonValue, SecretStr

from uwsgi_waffle.schema import Schema, Variable

SECRET = "geheim"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def declare(default: Any, **declaration: Any) -> Variable:
    """Declare one variable, X."""
    return Schema.declare({"X": {"default": default, **declaration}}).variable("X")


class TestDecimals:
    @pytest.mark.parametrize(
        "annotation",
        [
            Decimal,
            Decimal | None,
            Annotated[Decimal, Field(gt=0)],
            Annotated[Decimal, Field(gt=0)] | None,
            NewType("Price", Decimal),
        ],
    )
    def test_typed_digits_are_kept(self, annotation: Any) -> None:
        variable = declare(Decimal(1), type=annotation)
        assert variable.parse("8259.488927008254") == Decimal("8259.488927008254")

    def test_no_value_can_be_typed(self) -> None:
        assert declare(Decimal(1), type=Decimal | None).parse("null") is None


class TestValues:
    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (float, float("nan")),
            (float, float("inf")),
            (JsonValue, {"a": [float("nan")]}),
            (str, "\ud800"),
            (JsonValue, ["\udfff"]),
            (bytes, b"\xff"),
            (Any, object()),
            (Any, (1, 2)),
            (Any, {1: 2}),
            (Any, {1, 2}),
            (datetime.date, "not a day"),
        ],
        ids=repr,
    )
    def test_what_json_would_not_give_back_is_refused(self, annotation: Any, value: Any) -> None:
        with pytest.raises(ValueError, match=r"JSON|valid"):
            declare(None, type=annotation | None if annotation is not Any else Any).to_json(value)

    def test_what_refers_to_itself_is_refused(self) -> None:
        ring: list[Any] = []
        ring.append(ring)
        for annotation in (JsonValue, Any):
            with pytest.raises(ValueError, match=r"JSON|cyclic|recursion"):
                declare(None, type=annotation).to_json(ring)

    @pytest.mark.parametrize("text", ["", "Größe 🧇", "a\0b", "\u2028", "'\"\\", "x" * 10_000])
    def test_texts_come_back_as_they_were(self, text: str) -> None:
        variable = declare("")
        assert variable.adapter.validate_json(variable.to_json(text)) == text

    def test_a_stored_value_is_json_in_its_shortest_form(self) -> None:
        assert declare({}).to_json({"a": [1, 2]}) == '{"a":[1,2]}'

    def test_a_long_value_is_shown_cut_off(self) -> None:
        with pytest.raises(ValueError, match=r"\.\.\.$") as caught:
            declare(1).to_json("x" * 10_000)
        assert len(str(caught.value)) < 300


class TestParse:
    @pytest.mark.parametrize(
        ("annotation", "text", "value"),
        [
            (str, "abc", "abc"),
            (str, "5", "5"),
            (str, '"quoted"', '"quoted"'),
            (str, "", ""),
            (Annotated[str, Field(max_length=9)], "null", "null"),
            (int, "5", 5),
            (int, " 5", 5),
            (float, "1e3", 1000.0),
            (bool, "true", True),
            (bool, "yes", True),
            (bool, "0", False),
            (JsonValue, '{"a": [1, null]}', {"a": [1, None]}),
            (JsonValue, "plain words", "plain words"),
            (list[int], "[1, 2]", [1, 2]),
            (Colour, "red", Colour.RED),
            (Colour, '"red"', Colour.RED),
            (Literal["a", "b"], "a", "a"),
            (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
            (str | None, "null", None),
            (str | None, "abc", "abc"),
            (SecretStr, "abc", SecretStr("abc")),
        ],
    )
    def test_text_is_read_as_the_type_needs(self, annotation: Any, text: str, value: Any) -> None:
        variable = declare(value, type=annotation)
        assert variable.parse(text) == value
        assert type(variable.parse(text)) is type(value)

    @pytest.mark.parametrize("text", ["abc", "", "1.5", "[1]"])
    def test_text_that_fits_in_no_way_is_refused_and_shown(self, text: str) -> None:
        with pytest.raises(ValueError, match="integer") as caught:
            declare(1).parse(text)
        assert repr(text) in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('[1, "x"]', "valid integer, unable to parse string as an integer at 1"),
            ("[1, x]", "Invalid JSON: expected value at line 1 column 5"),
            ("a, b", "Invalid JSON: expected value at line 1 column 1"),
        ],
    )
    def test_a_list_that_is_refused_is_answered_with_what_is_wrong_in_it(
        self, text: str, reason: str
    ) -> None:
        with pytest.raises(ValueError, match=f"{reason}, not "):
            declare([1], type=list[int]).parse(text)

    def test_a_validator_that_fails_in_its_own_way_refuses(self) -> None:
        """As it does if the value is given in Python."""
        known = {1: "one"}
        variable = declare(1, type=Annotated[int, AfterValidator(lambda n: n if known[n] else 0)])
        with pytest.raises(ValueError, match="its validator failed with KeyError: 5"):
            variable.parse("5")

    def test_a_secret_that_fits_in_no_way_is_not_shown(self) -> None:
        with pytest.raises(ValueError, match="refused") as caught:
            declare(1, secret=True).parse(SECRET)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("default", "reason"),
    [
        (1, "Input should be a valid integer"),
        (1.5, "Input should be a valid number"),
        (True, "Input should be a valid boolean"),
        (datetime.date(2026, 1, 1), "Input should be a valid date"),
        (datetime.time(9), "Input should be in a valid time format"),
        (datetime.timedelta(1), "Input should be a valid timedelta"),
    ],
    ids=repr,
)
def test_a_refused_text_is_answered_with_what_the_type_takes(default: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"{reason}.*, not 'soon'"):
        declare(default).parse("soon")
