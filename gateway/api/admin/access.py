"""Who may do what below /admin: a key is identified once a request, and a route says which role it needs.

Every key of the admin API may read. A route that changes something takes ``by: Operator`` or ``by: Owner``,
which is also what the audit calls the one who did it.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gateway.dashboard.session import credential
from gateway.keyring import require
from gateway.serving import Serving
from gateway.stores.audit import Author
from gateway.stores.keys import Key, Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, and under which id the access log has the request."""

    key: Key
    request_id: str

    @property
    def author(self) -> Author:
        """Who the audit says that it was."""
        return Author(self.key.id, self.key.name, self.key.role.value, self.request_id)


class Identify:
    """Dependency of the whole admin API: who asks. Raises where the key is no key of this API."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def __call__(self, request: Request) -> None:
        serving = self._serving
        key = serving.keyring.identify(credential(request), serving.wall_time(), Role.VIEWER)
        request.state.actor = Actor(key, request.state.request_id)


class Needs:
    """Dependency of a route: whoever asks, if the role covers ``role``."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, request: Request) -> Actor:
        actor: Actor = request.state.actor
        require(actor.key, self.role)
        return actor


Operator = Annotated[Actor, Depends(Needs(Role.OPERATOR))]
Owner = Annotated[Actor, Depends(Needs(Role.OWNER))]
