"""Limits by other people, as toys to compare with: they have ConcurrencyLimit's face and no more."""

from math import inf


class Unlimited:
    """No limit: every call is sent."""

    def __init__(self):
        self.inflight = 0
        self.level = inf
        self.cause = ""
        self.retry_at = -inf

    @property
    def limit(self):
        return self.level if self.level == inf else max(1, int(self.level))

    def available(self, _now):
        return self.inflight < self.level

    def wait(self, _now):
        return 0.0

    def sent(self, _now):
        self.inflight += 1

    def answered(self, now, sent_at, ttft, headroom):
        pass

    def throttled(self, now, sent_at, error):
        pass

    def ended(self, now, sent_at, answered, tokens):
        self.inflight -= 1
        if answered:
            self.completed(now - sent_at)

    def completed(self, seconds):
        pass


class Aimd(Unlimited):
    """Netflix concurrency-limits' AIMDLimit: one more a success under load, times 0.9 a drop."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        self.level = 20.0

    def throttled(self, now, sent_at, error):
        self.level = max(1.0, self.level * 0.9)

    def completed(self, seconds):
        if (self.inflight + 1) * 2 >= self.level:
            self.level = min(200.0, self.level + 1)


class Gradient2(Unlimited):
    """Netflix concurrency-limits' Gradient2Limit, on total latency as it is meant for RPC."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        self.level = 20.0
        self.long = 0.0
        self.samples = 0

    def completed(self, seconds):
        self.samples += 1
        if self.samples <= 10:
            self.long += (seconds - self.long) / self.samples
        else:
            self.long += (seconds - self.long) * 2 / 601
        if self.long / seconds > 2:
            self.long *= 0.95
        if self.inflight + 1 < self.level / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self.long / seconds))
        self.level = max(1.0, min(200.0, self.level * 0.8 + (self.level * gradient + 4) * 0.2))
