"""The dashboard for the first ten seconds."""

from panels import Board, Panel, Query, figure

from boards.queries import DOLLARS, GOOD, MEANT, MODEL, OUT, TTFT, or_zero, quantile, rate

BOARD = Board(
    "overview",
    "overview",
    "Is it well, how fast is it, and what does it cost?",
    [
        figure(
            "Answered",
            f"{GOOD} / {MEANT}",
            "percentunit",
            steps=(0.999, 0.99),
            about="Of the calls that were not the caller's fault. Below 99.9% look at Upstreams.",
        ),
        figure("Calls", rate("tidegate_requests_total"), "reqps"),
        figure("First token, p95", quantile(0.95, TTFT), "s", steps=(2, 5)),
        figure("Upstreams out", or_zero(f"count(sum by (upstream) ({OUT}) > 0)"), steps=(1, 2)),
        figure("Waiting for a seat", "sum(tidegate_admission_waiting)", steps=(10, 100)),
        figure("Cost of an hour", f"3600 * {rate(DOLLARS)}", "currencyUSD"),
        Panel(
            "Calls by how they ended",
            [Query(rate("tidegate_requests_total", "outcome"), "{{outcome}}")],
            "reqps",
            stacked=True,
            about="RateLimited is a client's limit; Overloaded was shed by us.",
        ),
        Panel(
            "Time to the first token",
            [Query(quantile(q, TTFT), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
            "s",
        ),
        Panel(
            "Burn of the error budget",
            [Query("tidegate:error_budget_burn:rate5m", "{{tier}}")],
            about="1 is the objective's pace. 14.4 for an hour pages.",
            steps=(1, 14.4),
        ),
        Panel("First token by model, p95", [Query(quantile(0.95, TTFT, "gen_ai_request_model"), MODEL)], "s"),
        Panel(
            "Output tokens",
            [
                Query(
                    rate('gen_ai_client_token_usage_sum{gen_ai_token_type="output"}', "gen_ai_request_model"),
                    MODEL,
                )
            ],
            "cps",
            stacked=True,
        ),
        Panel(
            "The gateway's own part of the first token",
            [Query(quantile(q, "tidegate_overhead_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)],
            "s",
        ),
    ],
)
