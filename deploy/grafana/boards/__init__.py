"""The dashboards: which questions they answer, by which queries."""

from boards import cache, cost, local, overview, tiers, upstreams

BOARDS = (overview.BOARD, upstreams.BOARD, tiers.BOARD, cache.BOARD, local.BOARD, cost.BOARD)
