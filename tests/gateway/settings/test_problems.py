import dataclasses

import pytest

from gateway.settings import ConfigError, Problem, load

# One file each, and all that is said about it, a line a problem, after the file's name.
BAD_FILES = {
    "a misspelt section": (
        "server: {}\nmodel: {}\n",
        "2: model: unknown key; did you mean 'models'?",
    ),
    "a misspelt key, without its echo as missing": (
        "models:\n  deepseek-chat:\n    rout: [local/x]\n",
        "3: models.deepseek-chat.rout: unknown key; did you mean 'route'?",
    ),
    "an unknown key like no other": (
        "server:\n  zzz: 1\n",
        "2: server.zzz: unknown key",
    ),
    "a section that is no mapping": (
        "server: 8080\n",
        "1: server: must be a mapping of keys to values",
    ),
    "a file that is no mapping": (
        "# comment\n- server\n",
        "2: must be a mapping of sections such as server and models",
    ),
    "a duration without a unit": (
        "server:\n  drain: 30\n",
        "2: server.drain: must be a duration with its unit, such as 250ms, 30s, 10m or 1h",
    ),
    "a size with an unknown unit": (
        "server:\n  max_body: 32mb\n",
        "2: server.max_body: must be a size with its unit, such as 512B, 64KiB, 32MiB or 1GiB",
    ),
    "a port out of range": (
        "server:\n  host: 0.0.0.0\n  port: 65536\n",
        "3: server.port: must be at most 65535",
    ),
    "a port that is a truth value": (
        "server: {port: true}\n",
        "1: server.port: must be a number",
    ),
    "a collector that is no URL": (
        "observability: {otlp: 'collector:4318'}\n",
        (
            "1: observability.otlp: must be the URL of a collector that takes OTLP over HTTP, such as"
            " http://127.0.0.1:4318"
        ),
    ),
    "a collector's password in the file": (
        "observability: {otlp: 'https://me:secret@collector'}\n",
        (
            "1: observability.otlp: must hold no password: set OTEL_EXPORTER_OTLP_HEADERS in the environment"
            " instead"
        ),
    ),
    "no workers": (
        "server: {workers: 0}\n",
        "1: server.workers: must be at least 1",
    ),
    "a word for a number": (
        "server: {workers: many}\n",
        "1: server.workers: must be a whole number",
    ),
    "a pause of no length": (
        "server: {ping: 0s}\n",
        "1: server.ping: must be more than 0",
    ),
    "an origin with a path": (
        "server:\n  cors:\n    origins:\n      - https://a.example\n      - https://b.example/app\n",
        "5: server.cors.origins[1]: must be '*' or an origin such as https://app.example.com, with no path",
    ),
    "another database": (
        "database: mysql://me:hunter2@db/x\n",
        "1: database: must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
    ),
    "a database by its old name": (
        "database: postgres://db/x\n",
        "1: database: must begin with postgresql://",
    ),
    "a database without its name": (
        "database: postgresql://db\n",
        "1: database: must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
    ),
    "an option that no database has": (
        "database: postgresql://db/x?ssl=true\n",
        "1: database: ssl is no option of it; those are host, port, sslmode",
    ),
    "a database with a TLS that there isn't": (
        "database: postgresql://db/x?sslmode=yes\n",
        "1: database: sslmode must be one of allow, disable, prefer, require, verify-ca, verify-full",
    ),
    "a number for a key": (
        "admin:\n  key: 12345\n",
        "2: admin.key: must be text; put it in quotes",
    ),
    "an empty key": (
        "admin:\n  key: ''\n",
        "2: admin.key: must not be empty",
    ),
    "a key over two lines": (
        'admin:\n  key: "a\\nb"\n',
        "2: admin.key: must be printable ASCII with no space around it, as it travels in an HTTP header",
    ),
    "a misspelt preset": (
        "providers:\n  ds: {preset: deepsek, api_key: k}\n",
        "2: providers.ds.preset: there is no such preset; did you mean 'deepseek'?",
    ),
    "a context window with another unit": (
        "providers:\n  gpu:\n    preset: vllm\n    context_windows:\n      qwen: 32K\n",
        "5: providers.gpu.context_windows.qwen: must be a number of tokens, such as 131072, 128k or 1M",
    ),
    "no preset": (
        "providers:\n  ds:\n    api_key: k\n",
        "2: providers.ds.preset: missing",
    ),
    "no key where one is asked for": (
        "providers:\n  ds: {preset: deepseek}\n",
        "2: providers.ds.api_key: missing; deepseek asks for a key at its own address",
    ),
    "a key twice over": (
        "providers:\n  ds:\n    preset: deepseek\n    api_key: a\n    api_keys: [b]\n",
        "5: providers.ds.api_keys: give api_key or api_keys, not both",
    ),
    "no address where none is known": (
        "providers:\n  az: {preset: azure, api_key: k}\n",
        "2: providers.az.base_url: missing; preset azure has no address of its own",
    ),
    "an address without a scheme": (
        "providers:\n  v: {preset: vllm, base_url: 10.0.0.5:8000}\n",
        "2: providers.v.base_url: must be a URL such as https://api.example.com/v1",
    ),
    "an address with a password": (
        "providers:\n  v: {preset: vllm, base_url: 'http://u:hunter2@h/v1'}\n",
        "2: providers.v.base_url: must not carry credentials; use api_key or headers",
    ),
    "an address with a query": (
        "providers:\n  v: {preset: vllm, base_url: 'http://h/v1?api-version=1'}\n",
        "2: providers.v.base_url: must not carry a query or a fragment",
    ),
    "no weight": (
        "providers:\n  v: {preset: vllm, weight: 0}\n",
        "2: providers.v.weight: must be more than 0",
    ),
    "a header that is none": (
        "providers:\n  v:\n    preset: vllm\n    headers: {'x y': z}\n",
        '4: providers.v.headers."x y": is not a header name',
    ),
    "a provider's name with a space": (
        "providers:\n  Deep Seek: {preset: vllm}\n",
        (
            "2: providers.\"Deep Seek\": a provider's name is made of a-z, 0-9, '-' and '_', and "
            "begins with a letter or digit"
        ),
    ),
    "keys that the bundled model does not have": (
        "providers:\n  local:\n    preset: local\n    api_key: k\n    profil: exact\n",
        (
            "4: providers.local.api_key: unknown key\n"
            "5: providers.local.profil: unknown key; did you mean 'profile'?"
        ),
    ),
    "a device that is none": (
        "providers:\n  local: {preset: local, device: gpu}\n",
        "2: providers.local.device: must be auto, cpu, cuda or cuda:N",
    ),
    "a route to an undeclared provider": (
        (
            "providers:\n  deepseek: {preset: vllm}\nmodels:\n  gpt-4.1:\n    route:\n"
            "      - deepseek/x\n      - [deepseek/y, depseek/z]\n"
        ),
        (
            "7: models.\"gpt-4.1\".route[1][1]: provider 'depseek' is not declared under providers; "
            "did you mean 'deepseek'?"
        ),
    ),
    "a target without a provider": (
        "models:\n  a: {route: [local]}\n",
        "2: models.a.route[0]: must have the form provider/model",
    ),
    "a star among letters": (
        "models:\n  a: {route: [local/x-*]}\n",
        "2: models.a.route[0]: '*' stands alone: provider/* passes on the name that was asked for",
    ),
    "a route that leads nowhere": (
        "models:\n  a: {route: []}\n",
        "2: models.a.route: must not be empty",
    ),
    "a step that leads nowhere": (
        "models:\n  a:\n    route:\n      - local/x\n      - []\n",
        "5: models.a.route[1]: must not be empty",
    ),
    "a route that is no list": (
        "models:\n  a:\n    route: local/x\n",
        "3: models.a.route: must be a list",
    ),
    "an unknown balance": (
        "models:\n  a:\n    route: [local/x]\n    balance: fastest\n",
        (
            "4: models.a.balance: must be 'latency', 'weighted', 'least-busy', 'cheapest', 'priority' or"
            " 'affinity'"
        ),
    ),
    "a token probe without a budget": (
        "providers:\n  a: {preset: vllm, probe: {kind: token}}\nmodels: {m: {route: [a/x]}}\n",
        "2: providers.a.probe.paid_per_hour: missing; a token probe costs money, say how many an hour may",
    ),
    "a time zone that isn't": (
        (
            "providers:\n  a:\n    preset: vllm\n    schedule:\n      zone: Mars/Base\n"
            "      windows: [{from: '01:00', to: '02:00'}]\nmodels: {m: {route: [a/x]}}\n"
        ),
        "5: providers.a.schedule.zone: must be a time zone such as UTC or Asia/Shanghai",
    ),
    "a budget that is no share": (
        "models:\n  a:\n    route: [local/x]\n    retries: {budget: 3}\n",
        "4: models.a.retries.budget: must be a percentage, such as 10%",
    ),
    "two problems on one line": (
        "models:\n  a:\n    route: [local/x]\n    timeouts: {conect: 5s, total: 0s}\n",
        (
            "4: models.a.timeouts.total: must be more than 0\n"
            "4: models.a.timeouts.conect: unknown key; did you mean 'connect'?"
        ),
    ),
    "providers that no model leads to": (
        "providers:\n  v: {preset: vllm}\n",
        "1: models: missing; say which models clients may ask for",
    ),
    "a hash that is none": (
        "keys:\n  - {name: ci, key: 'sha256:abc', tenant: ci}\n",
        "2: keys[0].key: sha256: must be followed by 64 lower-case hexadecimal digits",
    ),
    "a key of nobody": (
        "keys:\n  - name: ci\n    key: k\n",
        "2: keys[0].tenant: missing",
    ),
    "the same key for two": (
        "keys:\n  - {name: ci, key: same, tenant: a}\n  - {name: ci, key: same, tenant: b}\n",
        (
            "3: keys[1].name: another key is named 'ci' already\n"
            "3: keys[1].key: the same key is declared above"
        ),
    ),
    "a word near two options": (
        "observability: {access_log: jsn}\n",
        "1: observability.access_log: must be 'json' or 'off'; did you mean 'json'?",
    ),
    "a truth value that is none": (
        "observability: {metrics: maybe}\n",
        "1: observability.metrics: must be true or false",
    ),
    "variables that are not set": (
        "keys:\n  - name: ${NOPE}\n    key: ${ALSO_NOPE}\n    tenant: t\n",
        (
            "2: keys[0].name: environment variable NOPE is not set; set it or write ${NOPE:-default}\n"
            "3: keys[0].key: environment variable ALSO_NOPE is not set; set it or write "
            "${ALSO_NOPE:-default}"
        ),
    ),
    "a variable without an end": (
        "admin:\n  key: ${OPEN\n",
        "2: admin.key: write ${NAME}, ${NAME:-default}, or $$ for a dollar sign",
    ),
    "a variable and a misspelling": (
        "server: {prt: 1}\nadmin:\n  key: ${NOPE}\n",
        (
            "1: server.prt: unknown key; did you mean 'port'?\n"
            "3: admin.key: environment variable NOPE is not set; set it or write ${NOPE:-default}"
        ),
    ),
    "the same key on two lines": (
        "server:\n  port: 1\n  port: 2\n",
        "3: server.port: given twice, first on line 2",
    ),
    "a bracket left open": (
        "server: {port: 1\n",
        "2: not valid YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "a tab": (
        "server:\n\tport: 1\n",
        "2: not valid YAML: found character '\\t' that cannot start any token",
    ),
    "a glob without quotes": (
        "models:\n  *: {route: [local/x]}\n",
        "2: not valid YAML: put text that begins with '*' in quotes",
    ),
    "two documents": (
        "server: {}\n---\nserver: {}\n",
        "2: not valid YAML: found another document",
    ),
    "an alias of itself": (
        "keys: &k [*k]\n",
        "1: keys[0]: an alias cannot contain itself",
    ),
    "a tag": (
        "admin:\n  key: !secret k\n",
        "2: admin.key: YAML tags are not supported",
    ),
    "a tag on a list": (
        "keys: !!set {a}\n",
        "1: keys: YAML tags are not supported",
    ),
    "an origin without a host": (
        "server: {cors: {origins: ['https://']}}\n",
        "1: server.cors.origins[0]: must be '*' or an origin such as https://app.example.com, with no path",
    ),
    "a tag that does not fit": (
        "server:\n  port: !!int many\n",
        "2: server.port: does not fit its YAML tag",
    ),
    "a list for a key": (
        "server:\n  [a, b]: 1\n",
        "2: server: a key must be plain text",
    ),
    "a control character": (
        "server:\n  host: 'a\x00'\n",
        "2: has a character that YAML does not allow",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_explained(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tidegate.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file.relative_to(tmp_path), environ={})
    assert str(caught.value).split("\n") == [f"tidegate.yaml:{line}" for line in said.split("\n")]


def test_a_problem_can_be_taken_apart(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text("server: {prt: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert caught.value.problems == [Problem(1, "server.prt", "unknown key", "port")]
    with pytest.raises(dataclasses.FrozenInstanceError):
        caught.value.problems[0].line = 2


def test_a_file_that_is_not_there(tmp_path):
    file = tmp_path / "nowhere.yaml"
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert str(caught.value) == f"{file}: cannot be read: No such file or directory"
    assert caught.value.problems[0].line is None


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_bytes(b"server:\n  host: caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert str(caught.value) == f"{file}:2: is not UTF-8 text"
