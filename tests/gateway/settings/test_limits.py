import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.settings import ConfigError, Limits, load
from policies.ratelimit import Dimension, Limit, Window

MODELS = """
providers: {up: {preset: vllm, base_url: "http://127.0.0.1:1/v1"}}
models: {m: {route: [up/m], hedge: {tiers: [pro]}}}
"""


def window(entry):
    return (entry["amount"] if isinstance(entry, dict) else entry).partition("/")[2]


def written_limits():
    number = st.integers(1, 10**9).map(str) | st.decimals("0.01", 10**6, places=2).map(str)
    amount = st.builds("{}/{}".format, number, st.sampled_from(Window))
    whole = st.fixed_dictionaries({"amount": amount}, optional={"strict": st.booleans()})
    entries = st.lists(amount | whole, min_size=1, unique_by=window)
    counted = [dimension.value for dimension in Dimension if dimension is not Dimension.CONCURRENCY]
    return st.fixed_dictionaries(
        {}, optional={**dict.fromkeys(counted, entries), "concurrency": st.integers(1, 100)}
    )


def test_what_is_written_becomes_limits():
    limits = Limits.model_validate(
        {
            "requests": ["10/minute", "50/day"],
            "tokens": {"amount": "600/minute", "burst": 50, "strict": True},
            "spend": "0.5/month",
            "concurrency": 2,
        }
    )
    assert limits.of("Europe/Berlin") == (
        Limit(Dimension.REQUESTS, 10, Window.MINUTE, zone="Europe/Berlin"),
        Limit(Dimension.REQUESTS, 50, Window.DAY, zone="Europe/Berlin"),
        Limit(Dimension.TOKENS, 600, Window.MINUTE, burst=50, zone="Europe/Berlin", strict=True),
        Limit(Dimension.SPEND, 0.5, Window.MONTH, zone="Europe/Berlin"),
        Limit(Dimension.CONCURRENCY, 2),
    )


@given(written_limits())
def test_the_written_form_comes_back(written):
    limits = Limits.model_validate(written)
    assert Limits.model_validate(limits.written()) == limits
    assert Limits.model_validate(limits.model_dump(mode="json")) == limits


def test_the_shortest_form_is_written():
    limits = Limits.model_validate({"requests": ["10/minute"], "spend": {"amount": "5/day", "strict": False}})
    assert limits.written() == {"requests": "10/minute", "spend": "5/day"}
    assert Limits().written() == {}


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("requests: 10", "limits.requests: must be an amount and its window, such as 10/minute or 50/day"),
        ("requests: 10/min", "did you mean '10/minute'?"),
        ("requests: [1/day, 10/fortnight]", "limits.requests[1]: the window must be one of second, minute"),
        ("requests: 0/day", "must be above zero; leave it out to set no limit"),
        ("requests: [1/day, 2/day]", "limits.requests[1]: a limit for each day is given above"),
        ("requests: {amount: 9/day, burst: 3}", "limits.requests.burst: a day and a month have no burst"),
        (
            "requests: {amount: 9/hour, bursts: 3}",
            "limits.requests.bursts: unknown key; did you mean 'burst'?",
        ),
        ("token: 5/hour", "limits.token: unknown key; did you mean 'tokens'?"),
        ("concurrency: 0", "limits.concurrency: must be at least 1"),
        ("concurrency: 2/minute", "limits.concurrency: must be a whole number"),
    ],
)
def test_faults_are_told_with_their_line(tmp_path, written, complaint):
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"{MODELS.replace('[pro]', '[free]')}\ntiers:\n  free:\n    limits: {{{written}}}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (problem,) = caught.value.problems
    assert problem.line == 7
    assert complaint in f"{problem}"


@pytest.mark.parametrize("url", ["redis", "http://x", "redis+sentinel://h:1", "redis://"])
def test_a_store_is_memory_or_a_url(tmp_path, url):
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"store: {url}\n")
    with pytest.raises(ConfigError, match=r"tidegate\.yaml:1: store: must"):
        load(file, {})


def test_a_password_in_the_store_is_never_shown(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text("store: rediss://user:hunter2@db.example.com/0\n")
    settings = load(file, {})
    assert "hunter2" not in repr(settings)
    assert settings.store.get_secret_value() == "rediss://user:hunter2@db.example.com/0"


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ("keys: [{name: a, key: k, tenant: t, tier: fre}]", "keys[0].tier"),
        ("tenants: {t: {tier: fre}}", "tenants.t.tier"),
    ],
)
def test_a_tier_that_is_not_declared_is_a_fault(tmp_path, section, path):
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"tiers: {{free: {{}}, pro: {{}}}}\n{section}\n{MODELS}")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}: tier 'fre' is not declared under tiers; did you mean 'free'?"
    ]


def test_a_hedge_names_declared_tiers(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"tiers: {{free: {{}}}}\n{MODELS}")
    with pytest.raises(ConfigError, match=r"models.m.hedge.tiers\[0\]: tier 'pro' is not declared"):
        load(file, {})


def test_a_file_without_tiers_leaves_them_to_the_admin_api(tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"keys: [{{name: a, key: k, tenant: t, tier: gold}}]\n{MODELS}")
    assert load(file, {}).keys[0].tier == "gold"


def test_a_key_without_a_tier_has_its_tenants(tmp_path):
    file = tmp_path / "tidegate.yaml"
    keys = ["{name: a, key: k, tenant: t}", "{name: b, key: l, tenant: t, tier: default}"]
    keys += ["{name: c, key: m, tenant: u}"]
    sections = ["tiers: {pro: {}}", "tenants: {t: {tier: pro}}", f"keys: [{', '.join(keys)}]", MODELS]
    file.write_text("\n".join(sections))
    assert [key.tier for key in load(file, {}).keys] == ["pro", "default", "default"]


def test_the_schema_says_what_is_accepted():
    with pytest.raises(ValidationError):
        Limits.model_validate({"requests": "\u0661\u0660/minute"})
    one, several = Limits.model_json_schema()["properties"]["requests"]["anyOf"]
    assert several["items"] == one
