"""From the configuration's providers to accounts that an upstream can be reached with."""

from collections.abc import Mapping

from gateway.providers.dialect import Account
from gateway.settings import LocalProvider, Provider

_USER_AGENT = ("user-agent", "tidegate")


def accounts_of(
    providers: Mapping[str, Provider | LocalProvider], local_urls: Mapping[str, str]
) -> dict[str, list[Account]]:
    """Every provider's accounts, one for each of its keys; several are named provider#1, provider#2.

    ``local_urls`` gives the base URL of each bundled model server by its provider's name.
    """
    found: dict[str, list[Account]] = {}
    for name, provider in providers.items():
        if isinstance(provider, LocalProvider):
            found[name] = [Account(name, local_urls[name], (_USER_AGENT,), bills_cancelled=False)]
        else:
            found[name] = _remote(name, provider)
    return found


def _remote(name: str, provider: Provider) -> list[Account]:
    secrets: list[str | None] = [key.get_secret_value() for key in provider.credentials]
    secrets = secrets or [None]
    extra = tuple((header.lower(), value.get_secret_value()) for header, value in provider.headers.items())
    return [
        Account(
            name=name if len(secrets) == 1 else f"{name}#{number}",
            base_url=provider.url,
            headers=(_USER_AGENT, *_credential(provider.facts.auth, secret), *extra),
            stream_usage=provider.facts.stream_usage,
            rename=provider.facts.rename,
            prefill=provider.facts.prefill,
            compress=provider.compress,
            bills_cancelled=(
                provider.facts.bills_cancelled
                if provider.bills_cancelled is None
                else provider.bills_cancelled
            ),
        )
        for number, secret in enumerate(secrets, start=1)
    ]


def _credential(auth: str, secret: str | None) -> tuple[tuple[str, str], ...]:
    if secret is None:
        return ()
    if auth == "api-key":
        return (("api-key", secret),)
    return (("authorization", f"Bearer {secret}"),)
