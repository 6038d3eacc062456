"""The dashboard of cost and energy."""

from panels import Board, Panel, Query, figure

from boards.queries import DOLLARS, JOULES, TOKENS, WASTED, or_zero, rate

CALLS = rate("tidegate_tier_requests_total")
MEASURED = rate(f'{JOULES}{{source="measured"}}')

BOARD = Board(
    "cost",
    "cost and energy",
    "What is spent and used, on what, and what is saved?",
    [
        figure("An hour", f"3600 * {rate(DOLLARS)}", "currencyUSD"),
        figure(
            "A thousand calls",
            f"1000 * {rate(DOLLARS)} / {CALLS}",
            "currencyUSD",
        ),
        figure("A million tokens", f"1e6 * {rate(DOLLARS)} / {rate(TOKENS)}", "currencyUSD"),
        figure(
            "Without a price",
            or_zero(f"{rate('tidegate_usage_unpriced_total')} / {CALLS}"),
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
        figure(
            "Power of all answers",
            rate(JOULES),
            "watt",
            about="Joules a second. Of remote providers it is an estimate from the models' sizes.",
        ),
        figure("Energy of a thousand calls", f"1000 / 3600 * {rate(JOULES)} / {CALLS}", "watth"),
        figure("Energy of a million tokens", f"1e6 / 3600 * {rate(JOULES)} / {rate(TOKENS)}", "watth"),
        figure(
            "Measured",
            f"({or_zero(MEASURED)}) / {rate(JOULES)}",
            "percentunit",
            about="The part of the energy that a counter measured; the rest is estimated.",
        ),
        figure("Wasted", f"{rate(WASTED)} / {rate(JOULES)}", "percentunit", steps=(0.1, 0.3)),
        figure("Wasted an hour", f"{rate(WASTED)}", "watth", about="By attempts that gave no answer."),
        Panel("Power by upstream", [Query(rate(JOULES, "upstream"), "{{upstream}}")], "watt", stacked=True),
        Panel("Power by model", [Query(rate(JOULES, "model"), "{{model}}")], "watt", stacked=True),
        Panel(
            "Power by how it is known",
            [Query(rate(JOULES, "source"), "{{source}}"), Query(rate(WASTED), "wasted")],
            "watt",
        ),
    ],
)
