"""The dashboard of the cache."""

from panels import Board, Panel, Query, figure

from boards.queries import ASKED, HITS, or_zero, quantile, rate

EMBEDDED = "tidegate_cache_embeddings_total"

BOARD = Board(
    "cache",
    "cache",
    "What does the cache save, and does it work?",
    [
        figure("Hits", f"{rate(HITS)} / {rate(ASKED)}", "percentunit"),
        figure("Tokens saved", rate("tidegate_cache_saved_tokens_total"), "cps"),
        figure("Answers in memory", "sum(tidegate_cache_memory_entries)"),
        figure("Room in memory", "sum(tidegate_cache_memory_bytes)", "bytes"),
        figure("Age of answers, p50", quantile(0.5, "tidegate_cache_age_seconds"), "s"),
        figure(
            "Errors", or_zero("sum(tidegate:cache_errors:ratio_rate5m)"), "percentunit", steps=(0.01, 0.05)
        ),
        Panel(
            "Hits by model",
            [Query(f"{rate(HITS, 'model')} / {rate(ASKED, 'model')}", "{{model}}")],
            "percentunit",
            most=1,
        ),
        Panel(
            "Calls",
            [Query(rate("tidegate_cache_requests_total", "state"), "{{state}}")],
            "reqps",
            stacked=True,
        ),
        Panel("Who answered", [Query(rate(HITS, "tier"), "{{tier}}")], "reqps", stacked=True),
        Panel(
            "Shared with calls under way",
            [Query(rate("tidegate_cache_coalesced_total", "among"), "{{among}}")],
            "reqps",
        ),
        Panel(
            "Stale answers asked for anew",
            [Query(rate("tidegate_cache_refreshes_total", "outcome"), "{{outcome}}")],
            "reqps",
        ),
        Panel(
            "Let go and not taken",
            [
                Query(rate("tidegate_cache_evictions_total", "tier, why"), "{{tier}}: {{why}}"),
                Query(rate("tidegate_cache_dropped_total"), "not taken or not given"),
            ],
            "reqps",
        ),
        Panel(
            "Texts embedded by an upstream",
            [
                Query(or_zero(rate(f'{EMBEDDED}{{outcome="ok"}}')), "embedded"),
                Query(or_zero(rate(f'{EMBEDDED}{{outcome!="ok"}}')), "not embedded"),
            ],
            "reqps",
            about="For the semantic cache. A prompt that isn't embedded goes on as after a miss.",
        ),
    ],
)
