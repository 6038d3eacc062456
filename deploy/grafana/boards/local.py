"""The dashboard of the bundled model."""

from panels import Board, Panel, Query, figure

from boards.queries import quantile, rate

FOUND = rate("tidegate_local_prefix_hit_tokens_total")
TOKENS = rate("tidegate_local_tokens_total")
BOARD = Board(
    "local",
    "local backend",
    "Does the bundled model carry what the others can't?",
    [
        figure("Up", "min(tidegate_local_up)", steps=(1, 0.5)),
        figure("Speed", "sum(tidegate_local_tokens_per_second)", "cps"),
        figure("Running", "sum(tidegate_local_running_sequences)"),
        figure("Waiting", "sum(tidegate_local_waiting_sequences)", steps=(4, 16)),
        figure("Wait for one more", "max(tidegate_local_expected_wait_seconds)", "s", steps=(5, 30)),
        figure(
            "Prefix found",
            f"{FOUND} / ({FOUND} + {rate('tidegate_local_prefilled_tokens_total')})",
            "percentunit",
        ),
        figure("FLOPs a token", f"{rate('tidegate_local_flops_total')} / {TOKENS}"),
        figure(
            "Energy a token",
            f"{rate('tidegate_local_energy_joules_total')} / {TOKENS}",
            "joule",
            about="Of prompts and answers. The panel of power tells whether it is measured.",
        ),
        Panel(
            "Power",
            [Query(rate("tidegate_local_energy_joules_total", "source"), "{{source}}")],
            "watt",
            width=16,
        ),
        Panel(
            "Requests",
            [Query(rate("tidegate_local_requests_total", "status"), "{{status}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Tokens", [Query(rate("tidegate_local_tokens_total", "kind"), "{{kind}}")], "cps", stacked=True
        ),
        Panel(
            "First token",
            [
                Query(quantile(q, "tidegate_local_time_to_first_token_seconds"), f"p{q * 100:g}")
                for q in (0.5, 0.95)
            ],
            "s",
        ),
        Panel(
            "Sequences",
            [
                Query("sum(tidegate_local_running_sequences)", "running"),
                Query("sum(tidegate_local_waiting_sequences)", "waiting"),
            ],
            stacked=True,
        ),
        Panel(
            "Blocks of the latent cache",
            [
                Query("sum(tidegate_local_cache_blocks) - sum(tidegate_local_cache_free_blocks)", "held"),
                Query("sum(tidegate_local_cache_prefix_blocks)", "with a known prefix"),
                Query("sum(tidegate_local_cache_blocks)", "all"),
            ],
        ),
        Panel(
            "Troubles",
            [
                Query(rate("tidegate_local_preemptions_total"), "preemptions"),
                Query(rate("tidegate_local_failed_sequences_total"), "failed sequences"),
                Query(rate("tidegate_local_engine_restarts_total"), "restarts of the engine"),
            ],
            "reqps",
        ),
    ],
)
