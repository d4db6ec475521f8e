"""Values on their way: `export` and `apply`."""

from __future__ import annotations

import gc
import getpass
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from pydantic_core import core_schema

from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK

from .conftest import ALWAYS, CONFS, Host, Process

Run = Callable[..., Result]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def run(site: Process) -> Run:
    """Run ``flask waffle`` with the given words."""
    return lambda *words: site.app.test_cli_runner().invoke(command, words)


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """Mount something at the place given last."""
    places: list[Path] = []

    def mount(*words: str | Path) -> Path:
        if subprocess.run(["mount", *words], capture_output=True).returncode:
            pytest.skip("this user may not mount")
        places.append(Path(words[-1]))
        return places[-1]

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


class TestTransfer:
    @pytest.fixture
    def target(self, tmp_path_factory: pytest.TempPathFactory) -> Process:
        """A process of another host, with a store of its own."""
        return Host(tmp_path_factory.mktemp("target")).start()

    def run_in(self, process: Process, *words: str, stdin: str | None = None) -> Result:
        return process.app.test_cli_runner().invoke(command, words, input=stdin)

    def test_values_go_from_one_store_to_another_in_one_update(
        self, site: Process, target: Process, run: Run, tmp_path: Path
    ) -> None:
        site.waffle.update({"SITENAME": "Brüssel 🧇", "LIMIT": 20, "TOKEN": "geheim"})
        path = str(tmp_path / "values.json")
        assert (
            run("export", path, "--reveal").exit_code,
            run("export", path, "--reveal").output,
        ) == (0, "")
        result = self.run_in(target, "apply", path, "--note", "moved")
        assert result.output.splitlines() == [
            "LIMIT: 10 -> 20",
            'SITENAME: "Waffle" -> "Brüssel 🧇"',
            f"TOKEN: {MASK} -> {MASK}",
            "revision 1",
        ]
        assert target.state.parse_conf() == site.state.parse_conf()
        assert {(entry.actor, entry.note) for entry in target.waffle.history()} == {
            (getpass.getuser(), "moved")
        }
        assert self.run_in(target, "apply", path).output == "revision 1 (nothing to change)\n"

    def test_what_was_set_is_set_whatever_the_default_becomes(
        self, site: Process, target: Process, run: Run
    ) -> None:
        """A value that is the default of the day was chosen all the same; what nobody chose goes on
        following the default.
        """
        site.waffle.update({"LIMIT": 10})
        text = run("export").stdout
        result = self.run_in(target, "apply", "-", "--dry-run", stdin=text)
        assert result.output.splitlines() == [
            "LIMIT: 10 by default -> 10",
            "revision 0 (nothing was changed)",
        ]
        assert result.exit_code == 4
        assert self.run_in(target, "apply", "-", stdin=text).output.splitlines()[-1] == "revision 1"
        assert target.state.store.load().values == {"LIMIT": "10"}
        assert (
            self.run_in(target, "apply", "-", stdin=text).output
            == "revision 1 (nothing to change)\n"
        )

    def test_what_was_the_default_is_set_only_where_another_value_is_in_force(
        self, site: Process, target: Process, tmp_path_factory: pytest.TempPathFactory, run: Run
    ) -> None:
        text = run("export").stdout
        assert json.loads(text)["set"] == []
        target.waffle.update({"LIMIT": 20})
        assert self.run_in(target, "apply", "-", stdin=text).output.splitlines() == [
            "LIMIT: 20 -> 10",
            "revision 2",
        ]
        assert target.state.store.load().values == {"LIMIT": "10"}
        later = Host(tmp_path_factory.mktemp("later")).start(
            confs={**CONFS, "LIMIT": {"default": 30}}
        )
        self.run_in(later, "apply", "-", stdin=text)
        assert later.state.store.load().values == {"LIMIT": "10"}

    def test_a_document_that_does_not_say_what_was_set_has_set_it_all(
        self, target: Process
    ) -> None:
        text = json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 10, "SITENAME": "Waffle"}})
        self.run_in(target, "apply", "-", stdin=text)
        assert target.state.store.load().values == {"LIMIT": "10", "SITENAME": '"Waffle"'}

    def test_the_document_tells_revision_and_declarations(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20})
        told = json.loads(run("export", "--reveal").stdout)
        assert (told["uwsgi_waffle"], told["revision"], told["values"]) == (
            1,
            1,
            {"SITENAME": "Waffle", "LIMIT": 20, "TOKEN": ""},
        )
        assert told["schema"]["LIMIT"] == {
            "desc": "Upload limit in bytes",
            "secret": False,
            "type": {"type": "integer", "exclusiveMinimum": 0},
        }

    def test_a_type_that_json_schema_has_no_words_for_is_any(self, host: Host) -> None:
        class Odd(int):
            @classmethod
            def __get_pydantic_core_schema__(cls, *args: object) -> core_schema.CoreSchema:
                plain = core_schema.plain_serializer_function_ser_schema(int)
                return core_schema.no_info_plain_validator_function(cls, serialization=plain)

        told = json.loads(
            self.run_in(host.start(confs={"N": {"default": Odd(7), "type": Odd}}), "export").stdout
        )
        assert (told["values"], told["schema"]["N"]["type"]) == ({"N": 7}, {})

    def test_with_json_it_tells_what_was_written(self, run: Run, tmp_path: Path) -> None:
        path = str(tmp_path / "values.json")
        result = run("export", path, "--json")
        assert (json.loads(result.stdout), result.stderr) == (
            {"revision": 0, "file": path, "left_out": ["TOKEN"]},
            "",
        )
        assert json.loads(run("export", "--json").stdout)["values"] == {
            "SITENAME": "Waffle",
            "LIMIT": 10,
        }

    @pytest.mark.parametrize("existing", [False, True])
    def test_a_file_with_secrets_is_the_users_alone(
        self, run: Run, tmp_path: Path, existing: bool
    ) -> None:
        path = tmp_path / "all.json"
        if existing:
            path.touch(mode=0o644)
        assert run("export", str(path), "--reveal").exit_code == 0
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_file_keeps_its_mode(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "all.json"
        path.touch()
        path.chmod(0o640)
        assert run("export", str(path)).exit_code == 0
        assert path.stat().st_mode & 0o777 == 0o640

    @needs_root
    def test_a_file_keeps_its_owner(self, run: Run, tmp_path: Path) -> None:
        """Root's export is readable for whom the file belonged to, unless secrets are in it."""
        path = tmp_path / "all.json"
        path.touch(mode=0o600)
        os.chown(path, 1234, 1235)
        assert run("export", str(path)).exit_code == 0
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
        assert run("export", str(path), "--reveal").exit_code == 0
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)

    def test_an_open_file_is_written_as_it_is(self, run: Run, tmp_path: Path) -> None:
        """As the shell opens it: `flask waffle export /dev/fd/3 3>values.json`."""
        with open(tmp_path / "values.json", "w+b") as file:
            assert run("export", f"/dev/fd/{file.fileno()}").exit_code == 0
            assert json.load(file)["values"]["LIMIT"] == 10

    def test_a_full_disk_leaves_the_former_file_alone(
        self, site: Process, run: Run, tmp_path: Path, mount: Callable[..., Path]
    ) -> None:
        """And nothing beside it."""
        (tmp_path / "disk").mkdir()
        disk = mount("-t", "tmpfs", "-o", "size=16k", "none", tmp_path / "disk")
        (disk / "values.json").write_text("former")
        (disk / "other").write_bytes(bytes(6000))
        site.waffle.update({"SITENAME": "x" * 12000})
        result = run("export", str(disk / "values.json"))
        assert result.exit_code == 1
        assert "No space left on device" in result.output
        assert (disk / "values.json").read_text() == "former"
        assert sorted(os.listdir(disk)) == ["other", "values.json"]

    def test_a_file_that_cannot_be_written_is_refused(self, run: Run, tmp_path: Path) -> None:
        """As all refusals are: with `--json` there is an object, too."""
        path = tmp_path / "none" / "values.json"
        result = run("export", str(path), "--json")
        assert (result.exit_code, json.loads(result.stdout)["error"]) == (1, "WaffleError")
        assert result.stderr == f"Error: {path} can't be written: No such file or directory.\n"

    def test_a_mounted_file_is_written_in_place(
        self, run: Run, tmp_path: Path, mount: Callable[..., Path]
    ) -> None:
        """A container that has just the one file of its host."""
        (tmp_path / "outside").write_text("former")
        (tmp_path / "inside").touch()
        inside = mount("--bind", tmp_path / "outside", tmp_path / "inside")
        assert run("export", str(inside)).exit_code == 0
        assert json.loads((tmp_path / "outside").read_text())["values"]["LIMIT"] == 10

    def test_a_store_that_is_gone_is_not_exported(
        self, host: Host, site: Process, tmp_path: Path
    ) -> None:
        result = self.run_in(
            host.start(host.store(ALWAYS)), "export", str(tmp_path / "values.json")
        )
        assert result.exit_code == 1
        assert "the store is down" in result.output
        assert not (tmp_path / "values.json").exists()

    def test_what_is_shown_in_the_place_of_a_secret_is_none(
        self, site: Process, run: Run, tmp_path: Path
    ) -> None:
        """`list --json` isn't an export, and looks much like one."""
        site.waffle.update({"TOKEN": "geheim"})
        path = tmp_path / "values.json"
        path.write_text(json.dumps(json.loads(run("list", "--json").output)["values"]))
        shown = run("get", "TOKEN").output.strip()
        for words in (["apply", str(path)], ["set", f"TOKEN={shown}"]):
            result = run(*words)
            assert result.exit_code == 1
            assert "TOKEN: it is what is shown in the place of a secret" in result.output
        assert site.waffle.values.TOKEN == "geheim"

    def test_secrets_are_left_out_and_named(self, site: Process, run: Run) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        result = run("export")
        assert "geheim" not in result.output
        assert json.loads(result.stdout)["values"].keys() == {"SITENAME", "LIMIT"}
        assert "left out because they are secret: TOKEN" in result.stderr

    @pytest.mark.parametrize("options", [(), ("--only-set",)])
    def test_pinned_ones_are_left_out_and_named(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
    ) -> None:
        """The value is this host's; so what was exported can be applied here, and elsewhere."""
        monkeypatch.setenv("MYSITE_LIMIT", "30")
        pinned = host.start(ENV_PREFIX="MYSITE_")
        result = self.run_in(pinned, "export", *options)
        assert "LIMIT" not in json.loads(result.stdout)["values"]
        assert "left out because the environment pins them: LIMIT" in result.stderr
        assert self.run_in(pinned, "apply", "-", stdin=result.stdout).exit_code == 0

    def test_a_value_under_a_former_name_is_stored(self, host: Host) -> None:
        host.start(confs={"NAME": {"default": "x"}}).waffle.update({"NAME": "old"})
        process = host.start(confs={"TITLE": {"default": "x", "was": "NAME"}, "A": {"default": 1}})
        words = ("apply", "-", "--reset-others", "--yes")
        assert self.run_in(process, *words, stdin="A=2\n").exit_code == 0
        assert process.waffle.values.TITLE == "x"

    def test_a_secret_is_masked_on_its_way_in(self, target: Process) -> None:
        text = json.dumps({"TOKEN": "geheim"})
        for options in (("--dry-run",), ("--dry-run", "--json"), ("--json",)):
            assert "geheim" not in self.run_in(target, "apply", "-", *options, stdin=text).output
        assert target.waffle.values.TOKEN == "geheim"

    def test_what_a_file_does_not_name_stays(self, target: Process) -> None:
        target.waffle.update({"SITENAME": "Mine"})
        result = self.run_in(target, "apply", "-", "--json", stdin='{"LIMIT": 20}')
        assert json.loads(result.output) == {
            "revision": 2,
            "changed": ["LIMIT"],
            "old": {"LIMIT": 10},
            "new": {"LIMIT": 20},
        }
        assert (target.waffle.values.SITENAME, target.waffle.values.LIMIT) == ("Mine", 20)

    def test_a_temporary_value_that_it_names_stays_for_good(self, target: Process) -> None:
        target.waffle.update({"LIMIT": 20, "SITENAME": "Mine"}, expires=timedelta(hours=1))
        self.run_in(target, "apply", "-", stdin='{"LIMIT": 20}')
        assert list(target.waffle.status()["temporary"]) == ["SITENAME"]

    def test_a_dry_run_changes_nothing_and_finds_the_difference(self, target: Process) -> None:
        result = self.run_in(target, "apply", "-", "--dry-run", stdin='{"LIMIT": 20}')
        assert result.output.splitlines() == ["LIMIT: 10 -> 20", "revision 0 (nothing was changed)"]
        assert (target.waffle.refresh(), result.exit_code) == (0, 4)
        result = self.run_in(target, "apply", "-", "--dry-run", stdin='{"LIMIT": 10}')
        assert result.exit_code == 4, "it isn't set yet"
        self.run_in(target, "apply", "-", stdin='{"LIMIT": 10}')
        result = self.run_in(target, "apply", "-", "--dry-run", "--json", stdin='{"LIMIT": 10}')
        assert (json.loads(result.output)["changed"], result.exit_code) == ([], 0)

    def test_others_are_reset_only_when_that_is_asked_for(self, target: Process) -> None:
        target.waffle.update({"SITENAME": "Mine", "LIMIT": 30})
        result = self.run_in(target, "apply", "-", "--reset-others", "--yes", stdin="LIMIT=20\n")
        assert result.output.splitlines() == [
            "LIMIT: 30 -> 20",
            'SITENAME: "Mine" -> "Waffle"',
            "revision 2",
        ]
        assert target.state.store.load().values == {"LIMIT": "20"}

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_where_nobody_can_be_asked_nothing_is_reset(
        self, target: Process, options: tuple[str, ...]
    ) -> None:
        target.waffle.update({"SITENAME": "Mine"})
        words = ("apply", "-", "--reset-others", *options)
        result = self.run_in(target, *words, stdin="LIMIT=20\n")
        assert result.exit_code == 1
        assert "there is no terminal to ask on. Add --yes" in result.stderr
        assert target.waffle.refresh() == 1
        target.waffle.reset("SITENAME")
        assert self.run_in(target, *words, stdin="LIMIT=20\n").exit_code == 0, "nothing to ask"

    def test_a_truncated_pipe_resets_nothing(self, target: Process) -> None:
        """What should have written the file has failed."""
        target.waffle.update({"SITENAME": "Mine"})
        result = self.run_in(target, "apply", "-", "--reset-others", "--yes", stdin="")
        assert (result.exit_code, target.waffle.refresh()) == (1, 1)

    @pytest.mark.parametrize("options", [(), ("--only-set",)])
    @pytest.mark.parametrize("ending", ["toml", "env", "json"])
    def test_an_export_is_applied_and_nothing_is_left_to_change(
        self,
        site: Process,
        target: Process,
        run: Run,
        tmp_path: Path,
        ending: str,
        options: tuple[str, ...],
    ) -> None:
        site.waffle.update({"SITENAME": "Brügge \x1b 'x' \"y\"\n🧇", "LIMIT": 20})
        path = str(tmp_path / f"values.{ending}")
        assert run("export", path, *options).exit_code == 0
        assert self.run_in(target, "apply", path).exit_code == 0
        assert target.state.parse_conf() == site.state.parse_conf()
        assert self.run_in(target, "apply", path).output == "revision 1 (nothing to change)\n"
        again = self.run_in(target, "apply", path, "--reset-others", "--dry-run")
        assert again.exit_code == 0

    def test_a_terminal_of_another_encoding(self, site: Process, target: Process) -> None:
        """What is redirected there into a file is UTF-8 as well, and can be applied."""
        site.waffle.update({"SITENAME": "Brügge 🧇"})
        for wanted in ("toml", "env", "json"):
            runner = site.app.test_cli_runner(charset="latin-1")
            exported = runner.invoke(command, ["export", "--format", wanted]).stdout_bytes
            target.waffle.update({"SITENAME": "other"})
            runner = target.app.test_cli_runner()
            assert runner.invoke(command, ["apply", "-"], input=exported).exit_code == 0
            assert target.waffle.values.SITENAME == "Brügge 🧇"

    def test_only_what_is_set(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20})
        assert json.loads(run("export", "--only-set").stdout)["values"] == {"LIMIT": 20}
        assert run("export", "--only-set", "--format", "toml").stdout.splitlines() == [
            "# flask waffle export, revision 1",
            "",
            "# Upload limit in bytes (integer, by default 10)",
            "LIMIT = 20",
        ]

    def test_what_toml_can_not_say_is_named(self, host: Host, site: Process) -> None:
        confs = {"MAIL": {"default": None, "type": str | None}, "N": {"default": 0}}
        other = host.start(confs=confs)
        text = self.run_in(other, "export", "--format", "toml").stdout
        assert "# MAIL isn't set, and TOML has no null" in text.splitlines()
        other.waffle.update({"MAIL": None})
        result = self.run_in(other, "export", "--format", "toml")
        assert result.exit_code == 1
        assert "MAIL: TOML has no null; write it with --format json" in result.stderr

    def test_the_format_is_what_the_name_ends_with(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        run("export", str(path))
        assert "SITENAME=Waffle" in path.read_text().splitlines()
        assert run("export", "--json", "--format", "toml").exit_code == 2

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "it is empty"),
            ("{", "isn't JSON"),
            ('{"a":' * 100_000, "isn't JSON"),
            ("[]", "isn't TOML"),
            ("[" * 100_000, "isn't TOML"),
            ("LIMIT=20\nLIMIT=30\n", "line 2 names LIMIT again"),
            ("LIMIT = 20\nLIMIT = 30\n", "isn't TOML"),
            ('{"LIMIT": 20, "LIMIT": 30}', "it isn't JSON (it names LIMIT again)"),
            ('{"uwsgi_waffle": 2, "values": {}}', "isn't what `flask waffle export` writes"),
            ('{"uwsgi_waffle": 1, "values": []}', "isn't what `flask waffle export` writes"),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": 20}, "set": "LIMIT"}',
                "isn't what `flask waffle export` writes",
            ),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": 20}, "set": [1]}',
                "isn't what `flask waffle export` writes",
            ),
            ("SITE=1", "'SITE' is not declared"),
            ('{"uwsgi_waffle": 1, "values": {"SITE": 1}}', "'SITE' is not declared"),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": -1, "SITENAME": 5}}',
                "LIMIT: Input should be greater than 0, not -1; SITENAME:",
            ),
            ('{"uwsgi_waffle": 1, "values": {"TOKEN": 5}}', "TOKEN: refused"),
        ],
    )
    def test_a_bad_file_changes_nothing_and_is_exit_code_1(
        self, target: Process, text: str, told: str
    ) -> None:
        gc.collect()  # what earlier tests left can't be finalized within a deep recursion
        result = self.run_in(target, "apply", "-", stdin=text)
        assert result.exit_code == 1
        assert told in result.output
        assert "Nothing was " in result.output
        assert target.waffle.refresh() == 0

    def test_a_file_that_is_not_there_is_exit_code_2(self, target: Process, tmp_path: Path) -> None:
        assert self.run_in(target, "apply", str(tmp_path / "none.json")).exit_code == 2
