"""The commands as a shell sees them: what they print, where, and their exit codes."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli import app
from tests.kit import processes
from tests.kit.chat import CHAT, chat
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, run


@pytest.fixture
def keys(gateway):
    def call(*argv, **environ):
        return run("keys", *argv, TIDEGATE_URL=gateway.url, TIDEGATE_ADMIN_KEY=ADMIN_KEY, **environ)

    return call


def test_a_keys_life(keys, gateway):
    made = keys("create", "laptop", "--tenant", "acme", "--model", "fake/*", "--model", "plain", "--json")
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)
    assert (key["name"], key["tenant"], key["models"]) == ("laptop", "acme", ["fake/*", "plain"])
    with gateway.client(key["key"]) as client:
        assert client.post(CHAT, json=chat("ok")).status_code == 200
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["plain"]
    listed = keys("list", "--tenant", "acme", "--json")
    assert [one["id"] for one in json.loads(listed.stdout)] == [key["id"]]
    assert key["key"] not in listed.stdout
    table = keys("list")
    assert (table.returncode, key["id"] in table.stdout, "laptop" in table.stdout) == (0, True, True)
    shown = keys("show", key["id"], "--json")
    assert json.loads(shown.stdout) == json.loads(listed.stdout)[0]
    gone = keys("delete", key["id"])
    assert (gone.returncode, key["id"] in gone.stdout) == (0, True)
    with gateway.client(key["key"]) as client:
        assert client.get("/v1/models").status_code == 401


def test_a_key_for_a_person_is_printed_by_itself_on_the_first_line(keys):
    made = keys("create", "person")
    assert re.fullmatch(r"tg-[A-Za-z0-9]{32}", made.stdout.splitlines()[0])


def test_a_key_is_changed_and_rotated(keys, gateway):
    key = json.loads(keys("create", "k", "--limit", "requests=5/minute", "--json").stdout)
    changed = keys(
        "update", key["id"], "--name", "other", "--model", "plain", "--expires", "2090-01-01T00:00:00Z"
    )
    assert (changed.returncode, "other" in changed.stdout, "2090" in changed.stdout) == (0, True, True)
    again = json.loads(keys("update", key["id"], "--expires", "never", "--all-models", "--json").stdout)
    assert (again["expires"], again["models"], again["limits"]) == (
        None,
        None,
        {"requests": "5/minute"},
    )
    rotated = json.loads(keys("rotate", key["id"], "--grace", "1h", "--json").stdout)
    for secret in (key["key"], rotated["key"]):
        with gateway.client(secret) as client:
            assert client.get("/v1/models").status_code == 200
    keys("delete", key["id"])


def test_tiers_and_tenants_and_who_changed_them(gateway):
    def call(*argv):
        done = run(*argv, TIDEGATE_URL=gateway.url, TIDEGATE_ADMIN_KEY=ADMIN_KEY)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = call(
        "tiers",
        "set",
        "shell",
        "--limit",
        "requests=10/minute,50/day",
        "--limit",
        "concurrency=2",
        "--share",
        "10%",
    )
    assert "requests 10/minute, 50/day; concurrency 2" in made
    call("tiers", "set", "shell", "--limit", "concurrency=", "--max-wait", "20s")
    shown = json.loads(call("tiers", "show", "shell", "--json"))
    assert (shown["limits"], shown["share"]) == ({"requests": ["10/minute", "50/day"]}, "10%")
    assert shown["queue"] == {"max_wait": "20s"}
    call("tenants", "set", "shell", "--tier", "shell", "--limit", "spend=50/month", "--note", "Shell Ltd")
    listed = call("tenants", "list")
    assert "spend 50/month" in listed
    assert "Shell Ltd" in listed
    assert "default" in call("tiers", "list")
    call("tenants", "delete", "shell")
    assert call("tiers", "delete", "shell") == "deleted shell\n"
    entries = json.loads(call("audit", "--name", "shell", "--json"))
    assert [(entry["subject"], entry["action"]) for entry in entries[:3]] == [
        ("tier", "delete"),
        ("tenant", "delete"),
        ("tenant", "create"),
    ]
    assert "declared" not in call("audit", "--limit", "3")


WRONG = [
    (["tiers", "set", "x", "--limit", "requests"], {}, "requests=10/minute"),
    (["tiers", "set", "x", "--limit", "requests=ten"], {}, "must be an amount"),
    (["tiers", "show", "nope"], {}, "nope"),
    (["tiers", "delete", "default"], {}, "built in"),
    (["audit", "--since", "yesterday"], {}, "since"),
    (["keys", "show", "key_nope"], {}, "key_nope"),
    (["keys", "delete", "key_nope"], {}, "key_nope"),
    (["keys", "create", "x", "--expires", "tomorrow"], {}, "expires"),
    (["keys", "list"], {"TIDEGATE_ADMIN_KEY": ""}, "TIDEGATE_ADMIN_KEY"),
    (["keys", "list"], {"TIDEGATE_ADMIN_KEY": "wrong"}, "unknown"),
    (["keys", "list"], {"TIDEGATE_ADMIN_KEY": CLIENT_KEY}, "admin API"),
    (["keys", "list"], {"TIDEGATE_URL": "http://127.0.0.1:9"}, "can't reach"),
    (["keys", "list"], {"TIDEGATE_URL": "nonsense"}, "can't reach"),
    (["keys", "list"], {"TIDEGATE_URL": "http://a..b"}, "can't reach"),
    (["keys", "list"], {"TIDEGATE_ADMIN_KEY": "schlüssel"}, "ASCII"),
]


@pytest.mark.parametrize(("argv", "environ", "word"), WRONG)
def test_what_goes_wrong_is_one_line_and_exit_code_1(gateway, argv, environ, word):
    environ = {"TIDEGATE_URL": gateway.url, "TIDEGATE_ADMIN_KEY": ADMIN_KEY, **environ}
    done = CliRunner().invoke(app, argv, env=environ)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("tidegate: ")
    assert word in line


@pytest.mark.parametrize(
    "argv", [["keys", "list"], ["tiers", "list"], ["tiers", "set", "x", "--weight", "2"]]
)
def test_a_server_that_is_no_gateway_is_told_in_one_line(gateway, argv):
    page = f"{gateway.url}/dashboard?"  # HTML, whatever comes behind the question mark
    done = CliRunner().invoke(app, argv, env={"TIDEGATE_URL": page, "TIDEGATE_ADMIN_KEY": ADMIN_KEY})
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"tidegate: {page} doesn't answer as a gateway does\n"


@pytest.mark.parametrize("argv", [["keys", "lst"], ["nonsense"], ["serve", "--workers", "0"]])
def test_a_wrong_command_line_is_exit_code_2(argv):
    assert CliRunner().invoke(app, argv).exit_code == 2


def test_exit_codes_reach_the_shell(keys, tmp_path):
    assert keys("show", "key_nope").returncode == 1
    assert run("check", str(tmp_path / "none.yaml")).returncode == 2


def test_check_of_a_good_file(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text(yaml.safe_dump(processes.settings("http://127.0.0.1:9", tmp_path / "keys.db")))
    done = run("check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"{file}: fine (1 provider, 2 models, 1 key)"


BAD = """\
serve: {}
models:
  a: {rout: [up/x]}
  b: {route: [nowhere/x]}
server: {port: 99999, drain: 5}
"""


def test_check_of_a_bad_file_tells_all_problems_with_their_lines(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    done = run("check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    problems = done.stderr.splitlines()
    assert [re.match(rf"{re.escape(str(file))}:(\d+): ", problem)[1] for problem in problems] == sorted(
        re.match(rf"{re.escape(str(file))}:(\d+): ", problem)[1] for problem in problems
    )
    assert "did you mean 'server'?" in problems[0]
    assert "did you mean 'route'?" in done.stderr
    assert {problem.split(":")[1] for problem in problems} >= {"1", "3", "5"}


def test_serve_does_not_start_with_a_bad_file(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    done = run("serve", "--config", str(file))
    assert done.returncode == 2
    assert done.stderr == run("check", str(file)).stderr


def test_serve_says_so_when_it_cannot_listen(gateway, tmp_path):
    port = int(gateway.url.rpartition(":")[2])
    config = processes.settings("http://127.0.0.1:9", tmp_path / "keys.db", server={"port": port})
    file = tmp_path / "tidegate.yaml"
    file.write_text(yaml.safe_dump(config))
    done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert "can't listen" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["no/such/folder/keys.db", "tidegate.yaml"])
def test_serve_says_so_when_it_cannot_open_its_database(tmp_path, name):
    config = processes.settings("http://127.0.0.1:9", tmp_path / name)
    file = tmp_path / "tidegate.yaml"
    file.write_text(yaml.safe_dump(config))
    done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert re.fullmatch(r"tidegate: can't open the database: .+\n", done.stderr)


def test_the_first_start_prints_keys_that_work_once(upstream, tmp_path):
    config = processes.settings(upstream.url, tmp_path / "keys.db")
    del config["keys"], config["admin"]
    with processes.gateway(tmp_path, config) as running:
        client_key = running.line_with(r"API key +(tg-\S+)")[1]
        admin_key = running.line_with(r"Admin key +(tga-\S+)")[1]
        with running.client(client_key) as client:
            assert client.post(CHAT, json=chat("ok")).status_code == 200
        with running.client(admin_key) as client:
            assert [key["name"] for key in client.get("/admin/keys").json()] == ["first", "first admin"]
        curl = running.log().partition("Try it:")[2].partition("\n\n")[2]
        assert f"{running.url}/v1/chat/completions" in curl
        assert client_key in curl
    with processes.gateway(tmp_path, config) as running:
        assert "(shown this once" not in running.log()


def test_version():
    done = run("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
