"""What the queries of several dashboards have in common. ``$__rate_interval`` is Grafana's."""


def rate(series: str, by: str = "") -> str:
    """What a counter grows by in a second, summed up by labels."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({series}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[$__rate_interval])))"


def or_zero(query: str) -> str:
    """For what is best when there is nothing to count."""
    return f"({query}) or vector(0)"


TTFT = "gen_ai_server_time_to_first_token_seconds"
MODEL = "{{gen_ai_request_model}}"
GOOD = rate('tidegate_tier_requests_total{blame="nobody"}')
MEANT = rate('tidegate_tier_requests_total{blame!="caller"}')
DOLLARS = "tidegate_usage_cost_dollars_total"
JOULES = "tidegate_energy_joules_total"
WASTED = "tidegate_energy_wasted_joules_total"
TOKENS = 'tidegate_usage_tokens_total{type=~"input|output"}'
HITS = 'tidegate_cache_requests_total{state=~"hit|stale|semantic"}'
ASKED = 'tidegate_cache_requests_total{state!="bypass"}'
OUT = 'tidegate_upstream_state{state!="closed"}'
