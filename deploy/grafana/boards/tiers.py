"""The dashboard of tiers and tenants."""

from panels import Board, Panel, Query

from boards.queries import quantile, rate

BOARD = Board(
    "tiers",
    "tiers and tenants",
    "Who is throttled, who waits, and does each tier get what it was promised? "
    "Tenants are no labels: `tidegate usage --by tenant` and the page /dashboard tell of them.",
    [
        Panel(
            "Calls", [Query(rate("tidegate_tier_requests_total", "tier"), "{{tier}}")], "reqps", stacked=True
        ),
        Panel(
            "Not answered, by who is to blame",
            [
                Query(
                    rate('tidegate_tier_requests_total{blame!="nobody"}', "tier, blame"),
                    "{{tier}}: {{blame}}",
                )
            ],
            "reqps",
        ),
        Panel(
            "Burn of the error budget",
            [Query("tidegate:error_budget_burn:rate5m", "{{tier}}")],
            steps=(1, 14.4),
        ),
        Panel(
            "Turned away by limits",
            [Query(rate("tidegate_limit_refusals_total", "scope, dimension"), "{{scope}}: {{dimension}}")],
            "reqps",
        ),
        Panel("Waiting for a seat", [Query("sum by (tier) (tidegate_admission_waiting)", "{{tier}}")]),
        Panel(
            "Having a seat", [Query("sum by (tier) (tidegate_admission_running)", "{{tier}}")], stacked=True
        ),
        Panel(
            "Wait of those who had to, p95",
            [Query(quantile(0.95, "tidegate_admission_wait_seconds", "tier"), "{{tier}}")],
            "s",
        ),
        Panel(
            "Told to come back later",
            [Query(rate("tidegate_admission_shed_total", "tier, reason"), "{{tier}}: {{reason}}")],
            "reqps",
        ),
        Panel(
            "Tokens",
            [Query(rate('tidegate_usage_tokens_total{type=~"input|output"}', "tier"), "{{tier}}")],
            "cps",
            stacked=True,
        ),
        Panel(
            "Used of what was reserved",
            [Query(quantile(q, "tidegate_reservation_used_ratio"), f"p{q * 100:g}") for q in (0.5, 0.95)],
            "percentunit",
            about="Well below 100% holds back calls that would fit; above is debt.",
        ),
        Panel(
            "Error of token estimates",
            [Query("tidegate_token_estimate_error_ratio", "{{model}}")],
            "percentunit",
        ),
        Panel(
            "Store and ledger",
            [
                Query("sum(tidegate_store_degraded)", "workers without the store"),
                Query("sum(tidegate_ledger_rows_waiting)", "rows that wait to be written"),
            ],
        ),
    ],
)
