"""Values that Flask-WaffleConf wrote: read as they are, without executing anything."""

from __future__ import annotations

import base64
import collections
import copyreg
import datetime
import io
import itertools
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle.legacy import MAX_SIZE, MAX_TUPLES, as_json, bad_row, is_legacy

DONE = "it was executed"


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(value: object, protocol: int | None = None) -> str:
    """Return what Flask-WaffleConf stores for a value."""
    return text_of(pickle.dumps(value, protocol))


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1) + b"."


def doubled(times: int) -> bytes:
    """Return a list that holds one list twice, that holds one list twice, and so on."""
    value: list[object] = []
    for _ in range(times):
        value = [value, value]
    return pickle.dumps(value)


class Evil:
    """Pickled, it is a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


class Persistent(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return "them" if value == "them" else None


def persistent() -> bytes:
    file = io.BytesIO()
    Persistent(file, 4).dump(["them"])
    return file.getvalue()


VALUES: list[object] = [
    *(None, True, False, 0, 1, -1, 255, 65536, 2**40, -(2**90), 1.5, -0.0),
    *("", "Waffle", "Größe 🧇", "a\nb'\\\"", "x" * 70_000),
    *([], [1, [2, ["x"]]], {}, {"a": {"b": [None]}}),
    *(list(range(2_000)), {str(number): number for number in range(2_000)}),
]


class TestReader:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_json_values_come_back_from_every_protocol(self, protocol: int) -> None:
        for value in VALUES:
            text = written(value, protocol)
            assert is_legacy(text)
            found = json.loads(as_json(text))
            assert found == value
            assert type(found) is type(value)

    @pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ((), []),
            ((1,), [1]),
            ((1, (2, 3), (4, 5, 6), (7, 8, 9, 10)), [1, [2, 3], [4, 5, 6], [7, 8, 9, 10]]),
            (set(), []),
            ({3, 1, 2}, [1, 2, 3]),
            ({"b", "a"}, ["a", "b"]),
            ({(2, "b"), (1, "a")}, [[1, "a"], [2, "b"]]),
            ({1: 2, None: 3}, {"1": 2, "null": 3}),
            ("Größe".encode(), "Größe"),
        ],
        ids=repr,
    )
    def test_what_json_does_not_have_becomes_what_comes_next_to_it(
        self, value: object, expected: object, protocol: int
    ) -> None:
        assert json.loads(as_json(written(value, protocol))) == expected

    def test_a_set_of_mixed_types_is_the_same_list_in_every_process(self) -> None:
        """Else each process would take the other's for a change."""
        text = written({"a", "b", 1, 2.5, None, "c"})
        script = "import sys, uwsgi_waffle.legacy as l; print(l.as_json(sys.argv[1]), end='')"
        other = subprocess.run(
            [sys.executable, "-c", script, text],
            env={**os.environ, "PYTHONHASHSEED": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert other.stdout == as_json(text)

    def test_one_object_in_two_places(self) -> None:
        part = ["a"]
        assert as_json(written([part, part])) == '[["a"],["a"]]'

    @pytest.mark.parametrize(
        ("data", "value"),
        [
            (b"S'Waffle'\np0\n.", "Waffle"),
            (b"\x80\x02U\x06Gr\xc3\xbc\xc3\x9fq\x00.", "Grüß"),
            (b"I01\n.", True),
            (b"L5L\n.", 5),
        ],
    )
    def test_what_python_2_wrote(self, data: bytes, value: object) -> None:
        assert json.loads(as_json(text_of(data))) == value

    @pytest.mark.parametrize("value", [1, 1.5, "Waffle", True, None, [1], {"a": 1}])
    def test_json_stays_as_it_is(self, value: object) -> None:
        text = json.dumps(value, indent=1)
        assert not is_legacy(text)
        assert as_json(text) == text

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (pickle.dumps(datetime.date(2020, 1, 1)), "asks for 'datetime.date'"),
            (pickle.dumps(collections.OrderedDict(a=1)), "asks for 'collections.OrderedDict'"),
            (pickle.dumps(frozenset([1])), "FROZENSET"),
            (pickle.dumps(1j), "asks for 'builtins.complex'"),
            (pickle.dumps(bytearray(b"x"), 5), "BYTEARRAY8"),
            (pickle.dumps(b"\xff"), "can't decode byte 0xff"),
            (pickle.dumps(math.nan), "not JSON compliant"),
            (pickle.dumps({(1, 2): 3}), "keys must be str"),
            (pickle.dumps(Evil(print, DONE)), "asks for 'builtins.print'"),
            (persistent(), "BINPERSID"),
            (b"Pthem\n.", "PERSID"),
            (b"\x80\x02\x82\x01.", "EXT1"),
            (b"(ios\nsystem\n.", "INST"),
            (b"(cos\nsystem\no.", "asks for 'os.system'|OBJ"),
            (b"cos\n\x1b[2J\n.", r"asks for 'os.\\x1b\[2J'"),
            (b"\x80\x02cbuiltins\nset\n.", "more than plain values"),
            (b"\x80\x02cbuiltins\nset\n)\x81.", "NEWOBJ"),
            (b"\x80\x02cbuiltins\nset\n)}\x92.", "NEWOBJ_EX"),
            (b"\x80\x02]}b.", "BUILD"),
            (b"\x80\x02]N\x85R.", "damaged"),
            (b"\x80\x02]]\x85R.", "damaged"),
            (b"}K\x01a.", "damaged"),
            (b"}(K\x01u.", "damaged"),
            (b"\x80\x04}(X\x02\0\0\0ab\x90.", "damaged"),
            (b"\x80\x04\x8c\x02osN\x93.", "damaged"),
        ],
    )
    def test_all_else_is_refused_by_its_name(self, data: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            as_json(text_of(data))

    @pytest.mark.parametrize(
        "data",
        [b"\x80\x04.", b"a.", b"0.", b"(((.", b"h\x05.", b"\x80\x02)Na.", b"}Nu.", b"N.N."],
    )
    def test_damage_is_a_value_error_and_nothing_else(self, data: bytes) -> None:
        if data == b"N.N.":  # what stands behind the end is never read
            assert as_json(text_of(data)) == "null"
            return
        with pytest.raises(ValueError, match=r"damaged|operation|unusual"):
            as_json(text_of(data))

    def test_every_cut_and_every_changed_byte_is_json_or_a_value_error(self) -> None:
        data = pickle.dumps([1, "x", {"a": {2.5, "y"}}, (None, True)])
        for at in range(len(data)):
            for changed in (
                data[:at],
                *(data[:at] + bytes([byte]) + data[at + 1 :] for byte in range(0, 256, 5)),
            ):
                try:
                    json.loads(as_json(text_of(changed)))
                except ValueError:
                    continue

    @pytest.mark.parametrize("text", ["", "x", "====", "Ti4", "no base64 at all", "é", "gA=="])
    def test_what_is_no_pickle_is_named_so(self, text: str) -> None:
        assert not is_legacy(text)
        with pytest.raises(ValueError, match="neither JSON nor a value of Flask-WaffleConf"):
            as_json(text)

    def test_the_error_of_a_damaged_store_says_why(self) -> None:
        error = ValueError("no JSON")
        assert bad_row("x", error) == "the stored text isn't JSON (no JSON)"
        message = bad_row(written(1j), error)
        assert "Flask-WaffleConf wrote it, and the pickle asks for 'builtins.complex'" in message


def collisions(count: int) -> bytes:
    """Return the pickle of a set of numbers that all have the hash 0."""
    numbers = (b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") for n in range(1, count))
    return b"\x80\x04\x8f(" + b"".join(numbers) + b"\x90."


def equal_hashes(count: int) -> list[tuple[int, int]]:
    """Return pairs with one hash: the last step of Python's hash of a tuple, undone."""
    first, second, start, mask = (
        11400714785074694791,
        14029467366897019727,
        2870177450012600261,
        2**64 - 1,
    )
    inverse, target = pow(second, -1, 2**64), 12345
    found: list[tuple[int, int]] = []
    for number in itertools.count():
        lane = (start + number * second) & mask
        lane = ((lane << 31 | lane >> 33) & mask) * first & mask
        other = (target - lane) * inverse & mask
        if other < 2**60:
            found.append((number, other))
        if len(found) == count:
            return found


def sets_of_one_list(count: int, size: int) -> bytes:
    """Return a list of sets, each made of the same long list."""
    numbers = b"".join(b"M" + struct.pack("<H", number) for number in range(size))
    sets = b"cbuiltins\nset\nh\x00\x85R" * count
    return b"\x80\x02(]q\x00(" + numbers + b"e" + sets + b"l."


HASHED = b"\x80\x04\x8f("  # begins a set


@pytest.mark.timeout(20)
class TestCost:
    """A row of a hostile table: one megabyte that would take minutes, gigabytes or the stack."""

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\x80\x02]q\x00h\x00a.", "Circular reference"),
            (b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.", "Circular reference"),
            (nested(250), "nested too deeply"),
            (nested(30_000), "recursion"),
            (HASHED + b")" + b"\x85" * 90_000 + b"\x90.", "too many parts"),
            (doubled(40), "too many parts when shared ones are repeated"),
            (HASHED + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"\x90.", "tuple in two places"),
            (b"\x80\x02)\x85(eq\x00h\x00h\x00\x86.", "unusual BINPUT"),
            (b"\x80\x02)\x852\x86.", "operation DUP"),
            (b"\x80\x02(" + b"N" * 100_001 + b"t.", "too many parts"),
            (b"\x80\x02(" + b"\x8f" * 600_000 + b"l.", "too many parts"),
            (sets_of_one_list(20_000, 30_000), "too many sets"),
            (collisions(60_000), "too many parts"),
            (pickle.dumps({*equal_hashes(MAX_TUPLES + 1)}), "too many parts"),
            (b"N." + b"x" * MAX_SIZE + b".", "at most"),
            (b"\x80\x02Nr\xff\xff\xff\xff.", "unusual LONG_BINPUT"),
            (b"Np99999999999999\n.", "unusual PUT"),
            (b"\x80\x02X\xff\xff\xff\x7fx.", "damaged"),
            (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fx.", "damaged"),
            (b"\x80\x04\x95" + b"\xff" * 7 + b"\x0fN.", "damaged"),
            (b"\x80\x02\x8b\x01\0\0\0\x01.", "LONG4"),
            (b"L" + b"9" * 1_000_000 + b"L\n.", "damaged"),
        ],
        ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
    )
    def test_it_is_refused_at_once(self, data: bytes, message: str) -> None:
        text, begun = text_of(data), time.process_time()
        with pytest.raises(ValueError, match=message):
            as_json(text)
        assert time.process_time() - begun < 2

    @pytest.mark.parametrize(
        "data",
        [
            collisions(1_000),
            pickle.dumps({*equal_hashes(MAX_TUPLES)}),
            sets_of_one_list(30, 1_000),
            doubled(12),
            nested(100),
        ],
        ids=["numbers", "tuples", "sets", "doubled", "nested"],
    )
    def test_what_just_passes_is_cheap(self, data: bytes) -> None:
        text, begun = text_of(data), time.process_time()
        json.loads(as_json(text))
        assert time.process_time() - begun < 2

    def test_the_tuples_do_have_one_hash(self) -> None:
        """A test of the test."""
        assert len({hash(pair) for pair in equal_hashes(10)}) == 1

    def test_a_refused_row_takes_no_memory(self) -> None:
        texts = [
            text_of(sets_of_one_list(20_000, 30_000)),
            text_of(b"(" + b"\x8f" * 600_000 + b"l."),
        ]
        tracemalloc.start()
        try:
            for text in texts:
                with pytest.raises(ValueError, match="too many"):
                    as_json(text)
            assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
        finally:
            tracemalloc.stop()

    def test_what_is_large_and_shared_is_not_repeated_without_end(self) -> None:
        part = pickle.dumps("x" * 2**19, 3)[:-1]

        def shared(times: int) -> str:
            return text_of(part[:2] + b"(" + part[2:] + b"h\x00" * times + b"l.")

        assert len(as_json(shared(3))) == 4 * (2**19 + 3) + 1
        with pytest.raises(ValueError, match="too many parts when shared ones are repeated"):
            as_json(shared(20))


class TestHostile:
    """Each would create the canary if anything of it ran."""

    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        return tmp_path / "canary"

    @pytest.fixture(
        params=["os.system", "eval", "exec", "nested", "in a set", "protocol 0", "build", "getattr"]
    )
    def hostile(self, request: pytest.FixtureRequest, canary: Path) -> str:
        shell, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
        evil = Evil(os.system, shell)
        data = {
            "os.system": lambda: pickle.dumps(evil),
            "eval": lambda: pickle.dumps(Evil(eval, python)),
            "exec": lambda: pickle.dumps(Evil(exec, python)),
            "nested": lambda: pickle.dumps({"a": [1, {"b": (evil,)}]}),
            "in a set": lambda: (
                b"\x80\x02cbuiltins\nset\n](" + pickle.dumps(evil, 2)[2:-1] + b"e\x85R."
            ),
            "protocol 0": lambda: pickle.dumps(evil, 0),
            "build": lambda: (
                b"\x80\x02]}X\x0c\0\0\0__setstate__" + pickle.dumps(evil, 2)[2:-1] + b"sb."
            ),
            "getattr": lambda: pickle.dumps(Evil(getattr, "", "join")),
        }[request.param]()
        return text_of(data)

    def test_the_canary_sings_when_they_are_loaded(self, canary: Path) -> None:
        """A test of the test."""
        pickle.loads(pickle.dumps(Evil(os.system, f"touch {canary}")))
        assert canary.exists()

    def test_it_is_recognised_and_refused(self, hostile: str, canary: Path) -> None:
        assert is_legacy(hostile)
        with pytest.raises(ValueError, match=r"asks for '(posix|builtins|__builtin__)\.|BUILD"):
            as_json(hostile)
        assert not canary.exists()

    def test_what_an_extension_code_stands_for_is_not_used(self, canary: Path) -> None:
        """The unpickler doesn't ask `find_class` for one that was used before."""
        copyreg.add_extension("os", "system", 250)
        try:
            pickle.loads(b"\x80\x02\x82\xfa.")
            shell = f"touch {canary}".encode()
            call = b"\x80\x02\x82\xfaX" + struct.pack("<I", len(shell)) + shell + b"\x85R."
            with pytest.raises(ValueError, match="EXT1"):
                as_json(text_of(call))
        finally:
            copyreg.remove_extension("os", "system", 250)
            copyreg.clear_extension_cache()
        assert not canary.exists()
