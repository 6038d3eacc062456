"""Facts that policies emit as they decide; metrics and the access log subscribe to them."""

from policies.facts.admission import CallAdmitted, CallShed
from policies.facts.cache import (
    CacheAsked,
    CacheDropped,
    CacheEvicted,
    CacheRefreshed,
    CallCoalesced,
    PromptEmbedded,
    SemanticLooked,
    SemanticVerified,
)
from policies.facts.calls import AttemptFinished, CallFinished, CallRefused, CallStarted
from policies.facts.ledger import EnergyCounted, LedgerFlushed, UsageCounted
from policies.facts.limits import LimitReached, ReservationSettled, SettlementLost, StoreChanged
from policies.facts.recovery import (
    BalancePanicked,
    FailedOver,
    Hedged,
    HedgeFinished,
    RetryRefused,
    RetryScheduled,
    StreamRescued,
)
from policies.facts.upstreams import (
    AttemptRefused,
    HealthChanged,
    LimitChanged,
    ProbeFinished,
    TimerExpired,
    UpstreamEjected,
)

__all__ = [
    "AttemptFinished",
    "AttemptRefused",
    "BalancePanicked",
    "CacheAsked",
    "CacheDropped",
    "CacheEvicted",
    "CacheRefreshed",
    "CallAdmitted",
    "CallCoalesced",
    "CallFinished",
    "CallRefused",
    "CallShed",
    "CallStarted",
    "EnergyCounted",
    "Fact",
    "FailedOver",
    "HealthChanged",
    "HedgeFinished",
    "Hedged",
    "LedgerFlushed",
    "LimitChanged",
    "LimitReached",
    "ProbeFinished",
    "PromptEmbedded",
    "ReservationSettled",
    "RetryRefused",
    "RetryScheduled",
    "SemanticLooked",
    "SemanticVerified",
    "SettlementLost",
    "StoreChanged",
    "StreamRescued",
    "TimerExpired",
    "UpstreamEjected",
    "UsageCounted",
]

Fact = (
    CallRefused
    | CallStarted
    | CallFinished
    | AttemptFinished
    | HealthChanged
    | UpstreamEjected
    | ProbeFinished
    | BalancePanicked
    | RetryScheduled
    | RetryRefused
    | FailedOver
    | Hedged
    | HedgeFinished
    | StreamRescued
    | LimitChanged
    | AttemptRefused
    | TimerExpired
    | LimitReached
    | ReservationSettled
    | StoreChanged
    | SettlementLost
    | CallAdmitted
    | CallShed
    | CacheAsked
    | CacheRefreshed
    | CallCoalesced
    | CacheEvicted
    | CacheDropped
    | PromptEmbedded
    | SemanticLooked
    | SemanticVerified
    | UsageCounted
    | EnergyCounted
    | LedgerFlushed
)
