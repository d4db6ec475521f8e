"""What a type checker must think of this application; it is checked, and never run."""

from flask import Flask
from pydantic import BaseModel
from typing_extensions import Any, assert_type

from uwsgi_waffle import WaffleConf


class Limits(BaseModel):
    LOW: int = 1
    NAME: str = "Waffle"


app = Flask(__name__)

waffle: WaffleConf[Limits] = WaffleConf()
assert_type(waffle.values, Limits)
assert_type(waffle.values.LOW, int)
assert_type(waffle.latest, Limits)
assert_type(waffle.latest.NAME, str)
with waffle.snapshot() as values:
    assert_type(values, Limits)

given: WaffleConf[Limits] = WaffleConf(app)
made = WaffleConf[Limits](app)
assert_type(given.values, Limits)
assert_type(made.values, Limits)

plain = WaffleConf()
assert_type(plain.values, Any)
assert_type(plain.latest.WHATEVER, Any)
assert_type(WaffleConf(app).values, Any)
with plain.snapshot() as anything:
    assert_type(anything, Any)


def annotated(waffle: WaffleConf) -> None:
    assert_type(waffle.values, Any)
