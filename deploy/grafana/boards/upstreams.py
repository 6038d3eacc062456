"""The dashboard of upstreams."""

from panels import Board, Panel, Query

from boards.queries import OUT, or_zero, quantile, rate

ALLOWED = "sum by (upstream) (tidegate_upstream_limit)"
BOARD = Board(
    "upstreams",
    "upstreams",
    "Which upstream is busy, slow or out, and what is done about it?",
    [
        Panel(
            "Out of rotation",
            [
                Query(
                    f"sum by (upstream, state) ({OUT}) > 0 or sum by (upstream) ({OUT}) == 0",
                    "{{upstream}} {{state}}",
                )
            ],
            about="Workers that see it so. A line at 0 is an upstream that is in.",
        ),
        Panel(
            "Busy",
            [Query("tidegate:upstream_busy:ratio_rate5m", "{{upstream}}")],
            "percentunit",
            steps=(0.2, 0.5),
            about="The share of what was meant for it that it was too busy for.",
        ),
        Panel(
            "Concurrency in use",
            [
                Query(
                    f"sum by (upstream) (tidegate_upstream_inflight) / {ALLOWED}",
                    "{{upstream}}",
                )
            ],
            "percentunit",
            about="Of what it was found to allow.",
        ),
        Panel("Concurrency allowed", [Query(ALLOWED, "{{upstream}}")]),
        Panel(
            "Answers",
            [Query(rate('tidegate_upstream_attempts_total{outcome="ok"}', "upstream"), "{{upstream}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Failures",
            [
                Query(
                    rate(
                        'tidegate_upstream_attempts_total{outcome!~"ok|lost|cancelled"}', "upstream, outcome"
                    ),
                    "{{upstream}} {{outcome}}",
                )
            ],
            "reqps",
            stacked=True,
        ),
        Panel(
            "First token, p95",
            [Query(quantile(0.95, "tidegate_upstream_first_token_seconds", "upstream"), "{{upstream}}")],
            "s",
        ),
        Panel(
            "Too silent",
            [Query(rate("tidegate_upstream_timeouts_total", "upstream, timer"), "{{upstream}} {{timer}}")],
            "reqps",
        ),
        Panel(
            "Held back by us",
            [Query(rate("tidegate_upstream_held_back_total", "upstream, gate"), "{{upstream}} {{gate}}")],
            "reqps",
        ),
        Panel(
            "What was done",
            [
                Query(rate("tidegate_retries_total"), "retries"),
                Query(rate("tidegate_failovers_total"), "failovers"),
                Query(rate("tidegate_hedges_total"), "hedges"),
                Query(rate("tidegate_rescues_total", "outcome"), "streams {{outcome}}"),
            ],
            "reqps",
        ),
        Panel(
            "Retries left to spend",
            [
                Query("sum by (model) (tidegate_retry_budget)", "{{model}}"),
                Query(or_zero(rate("tidegate_retries_refused_total")), "refused a second"),
            ],
        ),
        Panel(
            "Attempts for each call",
            [
                Query(
                    f"{rate('tidegate_upstream_attempts_total')} / {rate('tidegate_tier_requests_total')}",
                    "attempts",
                )
            ],
            about="1 is no retry, hedge or failover at all; below 1 the cache answers.",
        ),
    ],
)
