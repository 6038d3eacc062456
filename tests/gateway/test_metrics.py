from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics
from gateway.metrics.exemplars import Exemplars
from gateway.metrics.modelservers import ModelServerSeries
from gateway.metrics.series import flush, tally
from gateway.metrics.workers import OfAllWorkers
from gateway.upstreams import UpstreamReport
from policies.facts import (
    AttemptFinished,
    CacheDropped,
    CacheEvicted,
    CallAdmitted,
    CallFinished,
    CallRefused,
    CallShed,
    CallStarted,
    FailedOver,
    LimitChanged,
    RetryRefused,
    StreamRescued,
)
from policies.service import Attempt, Operation, Usage
from tests.kit.upstream import make_call


@pytest.fixture
def metrics(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Metrics()


def samples(metrics):
    families = text_string_to_metric_families(metrics.expose().decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(metrics, name, **labels):
    return samples(metrics).get((name, frozenset(labels.items())))


def finished(call, outcome="ok", usage=None, first_event=0.5):
    return CallFinished(call, outcome, 2.0, first_event, usage, "up", "m")


def test_a_call_from_its_start_to_its_end(metrics):
    call = make_call(route="gpt-*", model="gpt-5")
    call.attempts.append(Attempt("up", "gpt-5", "ok", 2.0, 0.4))
    metrics.emit(CallStarted(call))
    assert value(metrics, "tidegate_inflight_requests", operation="chat") == 1
    metrics.emit(finished(call, usage=Usage(10, 20)))
    assert value(metrics, "tidegate_inflight_requests", operation="chat") == 0
    assert value(metrics, "tidegate_requests_total", operation="chat", model="gpt-*", outcome="ok") == 1
    model = {"gen_ai_request_model": "gpt-*"}
    kind = {"gen_ai_operation_name": "chat", **model}
    assert value(metrics, "gen_ai_server_request_duration_seconds_sum", **kind) == 2
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **kind) == 0.5
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **model) == 10
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **model) == 20
    assert value(metrics, "tidegate_overhead_seconds_sum", operation="chat") == pytest.approx(0.1)


def test_evictions_are_there_before_the_first_so_that_its_rate_is_seen(metrics):
    for why in ("full", "expired", "purged"):
        assert value(metrics, "tidegate_cache_evictions_total", tier="memory", why=why) == 0
    metrics.emit(CacheEvicted("memory", 3, "full"))
    assert value(metrics, "tidegate_cache_evictions_total", tier="memory", why="full") == 3


@pytest.mark.parametrize(
    ("tier", "why"),
    [("memory", "oversized"), ("disk", "corrupt"), ("redis", "unreachable"), ("redis", "full")],
)
def test_dropped_answers_are_there_before_the_first(metrics, tier, why):
    name = "tidegate_cache_dropped_total"
    before = {labels for series, labels in samples(metrics) if series == name}
    assert value(metrics, name, tier=tier, why=why) == 0
    metrics.emit(CacheDropped(tier, why))
    assert value(metrics, name, tier=tier, why=why) == 1
    assert {labels for series, labels in samples(metrics) if series == name} == before


def test_a_call_without_an_answer_has_no_first_token(metrics):
    metrics.emit(finished(make_call(route="m"), "UpstreamBusy", first_event=None))
    assert value(metrics, "tidegate_requests_total", operation="chat", model="m", outcome="UpstreamBusy") == 1
    kind = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m"}
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **kind) == 0


@pytest.mark.parametrize(
    ("outcome", "blame"),
    [
        ("ok", "nobody"),
        ("cancelled", "nobody"),
        ("RateLimited", "caller"),
        ("Overloaded", "gateway"),
        ("UpstreamBusy", "upstream"),
        ("NoHealthyUpstream", "upstream"),
        ("DeadlineExceeded", "gateway"),
    ],
)
def test_a_tiers_calls_are_told_by_who_is_to_blame(metrics, outcome, blame):
    metrics.emit(finished(make_call(route="m", tier="pro"), outcome, first_event=None))
    found = {
        who: value(metrics, "tidegate_tier_requests_total", tier="pro", blame=who)
        for who in ("nobody", "caller", "gateway", "upstream")
    }
    assert found == {who: float(who == blame) for who in found}


def test_a_streams_tokens_are_timed_from_the_first_on(metrics):
    name = "gen_ai_server_time_per_output_token_seconds"
    labels = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m"}
    for stream, outcome, tokens in [
        (True, "ok", 16),
        (False, "ok", 16),
        (True, "cancelled", 16),
        (True, "ok", 1),
    ]:
        metrics.emit(finished(make_call(route="m", stream=stream), outcome, Usage(10, tokens)))
    assert value(metrics, f"{name}_count", **labels) == 1
    assert value(metrics, f"{name}_sum", **labels) == pytest.approx(1.5 / 15)


def test_a_refused_request_has_no_model(metrics):
    metrics.emit(CallRefused(Operation.EMBEDDING, "ModelNotFound"))
    labels = {"operation": "embeddings", "model": "other", "outcome": "ModelNotFound"}
    assert value(metrics, "tidegate_requests_total", **labels) == 1


def test_attempts_are_told_by_upstream_and_never_by_a_clients_word(metrics):
    call = make_call(route="gpt-*", model="gpt-whatever-they-say")
    metrics.emit(AttemptFinished(call, Attempt("up", "gpt-whatever-they-say", "ok", 1.0, 0.25)))
    metrics.emit(AttemptFinished(call, Attempt("up", "fixed", "UpstreamBusy", 1.0)))
    name = "tidegate_upstream_attempts_total"
    assert value(metrics, name, upstream="up", model="*", outcome="ok") == 1
    assert value(metrics, name, upstream="up", model="fixed", outcome="UpstreamBusy") == 1
    assert value(metrics, "tidegate_upstream_first_token_seconds_sum", upstream="up", model="*") == 0.25
    assert b"whatever" not in metrics.expose()


def test_tallied_values_are_counted_as_single_ones_are():
    registry = CollectorRegistry()
    direct, tallied = (
        Histogram(name, "", ["x"], registry=registry, buckets=(1, 2, 4)) for name in ("a", "b")
    )
    for seen in (0, 0.5, 1, 1.0001, 2, 3.5, 4, 9):
        direct.labels("x").observe(seen)
        tally(tallied, "x").observe(seen)
    assert registry.get_sample_value("b_count", {"x": "x"}) == 0
    flush()
    for name, labels in (("bucket", {"le": "1.0"}), ("bucket", {"le": "2.0"}), ("bucket", {"le": "4.0"})):
        found = [registry.get_sample_value(f"{each}_{name}", {"x": "x", **labels}) for each in ("a", "b")]
        assert found[0] == found[1] > 0
    for name in ("sum", "count"):
        found = [registry.get_sample_value(f"{each}_{name}", {"x": "x"}) for each in ("a", "b")]
        assert found[0] == found[1] > 0


def test_a_tenant_is_never_a_label(metrics):
    call = make_call(route="m", tenant="acme-corp", tier="pro")
    metrics.emit(CallStarted(call))
    metrics.emit(finished(call))
    assert b"acme" not in metrics.expose()


def test_a_fact_without_a_series_is_passed_over(metrics):
    before = metrics.expose()
    metrics.emit(LimitChanged("up", 9, 8, "growth"))
    assert metrics.expose() == before


def test_recovery_is_counted_by_the_configured_model(metrics):
    call = make_call(route="chat")
    metrics.emit(RetryRefused(call, "UpstreamBusy", "up"))
    metrics.emit(FailedOver(call, "UpstreamBusy", "other"))
    metrics.emit(StreamRescued(call, "restarted", "StreamInterrupted", 40))
    for name, labels in {
        "tidegate_retries_refused_total": {"failure": "UpstreamBusy"},
        "tidegate_failovers_total": {"failure": "UpstreamBusy"},
        "tidegate_rescues_total": {"outcome": "restarted"},
    }.items():
        assert value(metrics, name, model="chat", **labels) == 1


def report(model, *, passed_on=False, limit=8):
    return UpstreamReport("up", model, passed_on, "open", "", None, limit, 1, 0, 0.0, None, 0.0, None, 1.0)


def test_the_gauges_of_a_passed_on_model_add_up(metrics):
    reports = [report("a", passed_on=True), report("b", passed_on=True, limit=9), report("c", limit=10)]
    metrics.observe(reports, {("chat", 1): 7.5}, (Counter(), Counter()), {})
    assert value(metrics, "tidegate_retry_budget", model="chat", step="1") == 7.5
    assert value(metrics, "tidegate_upstream_limit", upstream="up", model="*") == 17
    assert value(metrics, "tidegate_upstream_limit", upstream="up", model="c") == 10
    assert value(metrics, "tidegate_upstream_state", upstream="up", model="*", state="open") == 2
    assert value(metrics, "tidegate_upstream_state", upstream="up", model="*", state="closed") == 0


def test_what_a_reload_took_away_is_in_no_state(metrics):
    nobody = (Counter(), Counter())
    metrics.observe([report("a"), report("b")], {("chat", 1): 7.5}, nobody, {})
    metrics.observe([report("b")], {}, nobody, {})
    for model, count in (("a", 0), ("b", 1)):
        labels = {"upstream": "up", "model": model}
        assert value(metrics, "tidegate_upstream_state", **labels, state="open") == count
        assert value(metrics, "tidegate_upstream_limit", **labels) == 8 * count
        assert value(metrics, "tidegate_upstream_inflight", **labels) == count
    assert value(metrics, "tidegate_retry_budget", model="chat", step="1") == 0


def test_model_servers_are_told_apart_by_their_providers():
    text = "# HELP tidegate_local_tokens_total Tokens\n# TYPE tidegate_local_tokens_total counter\n"
    told = {"small": text + 'tidegate_local_tokens_total{kind="prompt"} 7\n', "large": None, "other": text}
    lines = generate_latest(ModelServerSeries(told)).decode().splitlines()
    assert 'tidegate_local_up{provider="small"} 1.0' in lines
    assert 'tidegate_local_up{provider="large"} 0.0' in lines
    assert 'tidegate_local_tokens_total{kind="prompt",provider="small"} 7.0' in lines
    assert lines.count("# TYPE tidegate_local_tokens_total counter") == 1
    assert generate_latest(ModelServerSeries({})) == b""


def test_admission_is_counted_by_tier(metrics):
    call = make_call(tier="never heard of")
    metrics.emit(CallAdmitted(call, "default", 3.0))
    metrics.emit(CallShed(call, "free", "late", 9.0))
    metrics.emit(CallShed(call, "free", "late", 9.0))
    assert value(metrics, "tidegate_admission_wait_seconds_sum", tier="default") == 3
    assert value(metrics, "tidegate_admission_shed_total", tier="free", reason="late") == 2
    metrics.observe([], {}, (Counter(free=4, pro=2), Counter(free=9, pro=0)), {})
    assert value(metrics, "tidegate_admission_running", tier="free") == 4
    assert value(metrics, "tidegate_admission_waiting", tier="free") == 9
    metrics.observe([], {}, (Counter(pro=1), Counter(pro=0)), {"chat": 0.02})
    assert value(metrics, "tidegate_admission_waiting", tier="free") == 0
    assert value(metrics, "tidegate_token_estimate_error_ratio", model="chat") == 0.02


class Kept:
    exemplar = "0af7651916cd43dd8448eb211c80319c"


class NotKept:
    exemplar = None


def test_exemplars_that_cannot_be_written_harm_nobody(metrics, tmp_path):
    metrics.emit(finished(make_call(route="m", trace=Kept())))
    exemplars = Exemplars(lambda: 1000.5, tmp_path / "gone")
    exemplars.gather()
    assert {exemplar.value for exemplar in exemplars.all().values()} == {0.5, 2.0}


def test_a_bucket_has_the_trace_of_its_last_call(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics = Metrics(wall_time=lambda: 1000.5)
    for trace in (Kept(), NotKept(), None):
        metrics.emit(finished(make_call(route="m", trace=trace)))
    lines = openmetrics.generate_latest(metrics.collected()).decode().splitlines()
    labels = 'gen_ai_operation_name="chat",gen_ai_request_model="m"'
    told = ' # {trace_id="0af7651916cd43dd8448eb211c80319c"} 2.0 1000.5'
    assert f'gen_ai_server_request_duration_seconds_bucket{{{labels},le="2.5"}} 3.0{told}' in lines
    assert f'gen_ai_server_request_duration_seconds_bucket{{{labels},le="5.0"}} 3.0' in lines
    assert len([line for line in lines if "trace_id" in line]) == 2  # the other is the first token's


def test_a_worker_that_is_just_making_its_file_disturbs_nobody(tmp_path):
    begun = MmapedDict(str(tmp_path / "counter_1.db"))
    begun.write_value(mmap_key("calls", "calls_total", (), (), "Calls."), 3, 0)
    begun.close()
    (tmp_path / "counter_2.db").touch()
    (family,) = OfAllWorkers(str(tmp_path)).collect()
    assert [sample.value for sample in family.samples] == [3]
