"""The dashboard of cost and energy."""

from panels import Board, Panel, Query, figure

from boards.queries import DOLLARS, TOKENS, or_zero, rate

BOARD = Board(
    "cost",
    "cost and energy",
    "What is spent, on what, and what is saved?",
    [
        figure("An hour", f"3600 * {rate(DOLLARS)}", "currencyUSD"),
        figure(
            "A thousand calls",
            f"1000 * {rate(DOLLARS)} / {rate('tidegate_tier_requests_total')}",
            "currencyUSD",
        ),
        figure("A million tokens", f"1e6 * {rate(DOLLARS)} / {rate(TOKENS)}", "currencyUSD"),
        figure(
            "Without a price",
            or_zero(f"{rate('tidegate_usage_unpriced_total')} / {rate('tidegate_tier_requests_total')}"),
            "percentunit",
            steps=(0.01, 0.1),
        ),
        figure(
            "Found in providers' caches",
            or_zero(rate('tidegate_usage_tokens_total{type="cached_input"}')),
            "cps",
        ),
        figure("Saved by our cache", rate("tidegate_cache_saved_tokens_total"), "cps"),
        Panel(
            "Cost of an hour by model",
            [Query(f"3600 * {rate(DOLLARS, 'model')}", "{{model}}")],
            "currencyUSD",
            stacked=True,
        ),
        Panel(
            "Cost of an hour by tier",
            [Query(f"3600 * {rate(DOLLARS, 'tier')}", "{{tier}}")],
            "currencyUSD",
            stacked=True,
        ),
        Panel("Tokens by kind", [Query(rate("tidegate_usage_tokens_total", "type"), "{{type}}")], "cps"),
    ],
)
