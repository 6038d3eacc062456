import hashlib

import pytest
from pydantic import ValidationError

from gateway.settings import (
    ConfigError,
    LocalProvider,
    Provider,
    Settings,
    Target,
    default_settings,
    load,
)

EXAMPLE = """\
server:    {host: 127.0.0.1, port: 8080, workers: 1, max_body: 32MiB, drain: 30s}
database:  sqlite:///tidegate.db
admin:     {key: "${TIDEGATE_ADMIN_KEY}"}
providers:
  deepseek:   {preset: deepseek, api_key: "${DEEPSEEK_API_KEY}"}
  openrouter: {preset: openrouter, api_keys: ["${OR_KEY_1}", "${OR_KEY_2}"]}
  vllm:       {preset: openai, base_url: "http://10.0.0.5:8000/v1", weight: 2}
  openai:     {preset: openai, api_key: "${OPENAI_API_KEY}"}
  local:      {preset: local}
models:
  deepseek-chat:
    route:
      - [deepseek/deepseek-chat, vllm/deepseek-v3]
      - openrouter/deepseek/deepseek-chat
      - local/smollm2-135m-moe
    balance:  weighted
    timeouts: {connect: 5s, total: 10m}
  "gpt-*":    {route: [openai/*]}
keys:
  - {name: ci, key: "${CI_KEY}", tenant: ci, tier: free}
observability: {metrics: true, access_log: json}
"""
ENVIRON = {
    "TIDEGATE_ADMIN_KEY": "admin-secret",
    "DEEPSEEK_API_KEY": "deepseek-secret",
    "OR_KEY_1": "router-secret-1",
    "OR_KEY_2": "router-secret-2",
    "OPENAI_API_KEY": "openai-secret",
    "CI_KEY": "ci-secret",
}


@pytest.fixture
def loaded(tmp_path):
    def load_text(text, environ=ENVIRON):
        file = tmp_path / "tidegate.yaml"
        file.write_text(text, encoding="utf-8")
        return load(file, environ)

    return load_text


def test_the_example_loads(loaded):
    settings = loaded(EXAMPLE)
    assert settings.server.max_body == 32 * 1024 * 1024
    assert settings.server.drain == 30
    chat = settings.models["deepseek-chat"]
    assert chat.route == (
        (Target("deepseek", "deepseek-chat"), Target("vllm", "deepseek-v3")),
        (Target("openrouter", "deepseek/deepseek-chat"),),
        (Target("local", "smollm2-135m-moe"),),
    )
    assert (chat.timeouts.connect, chat.timeouts.total) == (5, 600)
    assert settings.models["gpt-*"].route == ((Target("openai", "*"),),)
    assert str(settings.models["gpt-*"].route[0][0]) == "openai/*"
    assert isinstance(settings.providers["local"], LocalProvider)
    assert settings.keys[0].tier == "free"


def test_a_provider_knows_its_address_and_keys(loaded):
    providers = loaded(EXAMPLE).providers
    assert providers["deepseek"].url == "https://api.deepseek.com"
    assert providers["vllm"].url == "http://10.0.0.5:8000/v1"
    assert providers["vllm"].credentials == ()
    keys = [key.get_secret_value() for key in providers["openrouter"].credentials]
    assert keys == ["router-secret-1", "router-secret-2"]
    assert providers["deepseek"].facts.keep_alive.comments


@pytest.mark.parametrize("text", ["", "# only a comment\n", "server:\nmodels:\n", "\ufeffserver: {}\n"])
def test_a_file_that_says_nothing_means_the_defaults(loaded, text):
    assert loaded(text) == default_settings()


def test_the_defaults_serve_the_bundled_model():
    settings = default_settings()
    assert settings.server.host == "127.0.0.1"
    assert (settings.server.port, settings.server.workers, settings.server.cors) == (8080, 1, None)
    assert (settings.server.drain, settings.server.ping) == (30, 10)
    assert settings.database.get_secret_value() == "sqlite:///tidegate.db"
    assert settings.admin.key is None
    assert settings.providers == {"local": LocalProvider(preset="local")}
    assert settings.models["smollm2-135m-moe"].route == ((Target("local", "smollm2-135m-moe"),),)
    assert settings.observability.access_log == "json"


def test_the_bundled_model_needs_no_route_of_its_own(loaded):
    settings = loaded("providers:\n  local: {preset: local, device: 'cuda:1', threads: 4}\n")
    assert settings.models == default_settings().models
    assert settings.providers["local"].threads == 4


def test_settings_cannot_be_changed(loaded):
    settings = loaded(EXAMPLE)
    with pytest.raises(ValidationError):
        settings.server.port = 1
    with pytest.raises(ValidationError):
        settings.database = "sqlite:///other.db"


def test_off_is_a_word_and_not_a_falsehood(loaded):
    assert loaded("observability: {access_log: off}\n").observability.access_log == "off"
    assert loaded("observability: {metrics: off}\n").observability.metrics is False


def test_names_that_look_like_numbers_stay_names(loaded):
    assert list(loaded("models:\n  4: {route: [local/x]}\n").models) == ["4"]


@pytest.mark.parametrize(
    "origin", ["*", "https://app.example.com", "http://127.0.0.1:3000", "http://[::1]:3000"]
)
def test_origins(loaded, origin):
    assert loaded(f"server: {{cors: {{origins: ['{origin}']}}}}\n").server.cors.origins == (origin,)


def test_an_anchor_saves_writing(loaded):
    settings = loaded("models:\n  a: &same {route: [local/x]}\n  b: *same\n")
    assert settings.models["a"] == settings.models["b"]


def test_a_key_is_told_by_its_hash_however_it_is_written(loaded):
    digest = hashlib.sha256(b"ci-secret").hexdigest()
    (plain,) = loaded("keys: [{name: a, key: ci-secret, tenant: t}]\n").keys
    (hashed,) = loaded(f"keys: [{{name: a, key: 'sha256:{digest}', tenant: t}}]\n").keys
    assert plain.sha256 == hashed.sha256 == digest
    assert plain.tier == "default"
    assert plain.models is None


def test_a_plain_key_and_its_hash_are_the_same_key(loaded):
    digest = hashlib.sha256(b"k").hexdigest()
    text = f"keys:\n  - {{name: a, key: k, tenant: t}}\n  - {{name: b, key: 'sha256:{digest}', tenant: t}}\n"
    with pytest.raises(ConfigError, match="the same key is declared above"):
        loaded(text)


def test_values_come_from_the_environment(loaded):
    text = "server: {host: '${HOST}', port: '${PORT:-9000}'}\ndatabase: sqlite:///${DIR:-/var}/$$.db\n"
    settings = loaded(text, {"HOST": "::1"})
    assert (settings.server.host, settings.server.port) == ("::1", 9000)
    assert settings.database.get_secret_value() == "sqlite:////var/$.db"
    assert loaded(text, {"HOST": "::1", "PORT": "1", "DIR": ""}).server.port == 1


def test_a_value_is_never_read_as_yaml_nor_expanded_again(loaded):
    (key,) = loaded("keys: [{name: a, key: '${K}', tenant: t}]\n", {"K": "${X}: [1]"}).keys
    assert key.key.get_secret_value() == "${X}: [1]"


def test_a_secret_shows_in_no_repr(loaded):
    settings = loaded(EXAMPLE)
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    assert not [secret for secret in ENVIRON.values() if secret in shown]


SPILLS = [
    "admin: {key: [hunter2]}",
    "admin: {key: hunter2, kez: hunter2}",
    "admin: {key: *hunter2}",
    "admin: {key: !hunter2!x y}",
    "admin: {key: !hunter2 x}",
    'admin: {key: "hunter2\\nhunter2"}',
    "database: mysql://me:hunter2@db/x",
    "database: postgresql://me:hunter2@db/x?hunter=2",
    "keys: [{name: a, key: 'sha256:hunter2', tenant: t}]",
    "keys: [{name: a, key: hunter2}, {name: a, key: hunter2, tenant: t, tear: t}]",
    "providers: {a: {preset: deepseek, api_key: [hunter2]}}",
    "providers: {a: {preset: deepseek, api_keys: hunter2}}",
    "providers: {a: {preset: deepseek, api_key: hunter2, api_keys: [hunter2]}}",
    "providers: {a: {preset: local, api_key: hunter2}}",
    "providers: {a: {preset: vllm, headers: {authorization: {bearer: hunter2}}}}",
    "providers: {a: {preset: vllm, base_url: 'http://me:hunter2@h'}}",
    "providers: {a: {preset: hunter2}}",
    "server: {drain: hunter2, port: hunter2, cors: {origins: [hunter2]}}",
    "observability: {access_log: hunter2, metrics: hunter2}",
]


@pytest.mark.parametrize("text", SPILLS)
def test_a_secret_shows_in_no_error(loaded, text):
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "hunter2" not in shown


def test_settings_made_by_hand_are_held_to_the_same_rules():
    with pytest.raises(ValidationError, match="provider 'nowhere' is not declared"):
        Settings(models={"a": {"route": ["nowhere/x"]}})
    with pytest.raises(ValidationError):
        Provider(preset="deepseek")
