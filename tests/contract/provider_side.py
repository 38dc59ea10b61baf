"""One provider beside a server that plays its vendor: what the fault suites hold in hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import Failure
from midwatch.schemas.model import ModelRequest
from midwatch.workers import providers
from midwatch.workers.providers import Provider
from tests.contract.provider_requests import ask, credentials
from tests.contract.provider_server import ProviderServer, Reply
from tests.contract.provider_wire import WIRES, Wire


@dataclass(frozen=True)
class Side:
    """A provider, its vendor, and the vendor's words."""

    name: str
    model: Provider
    vendor: ProviderServer
    wire: Wire

    def error(self, answer: Reply, request: ModelRequest | None = None) -> ModelError:
        """The error that a call ends in when the vendor answers so."""
        self.vendor.will(answer)
        with pytest.raises(ModelError) as caught:
            self.model.complete(request or ask())
        return caught.value

    def failure(self, answer: Reply, request: ModelRequest | None = None) -> Failure:
        """The failure that a call ends in when the vendor answers so."""
        return self.error(answer, request).failure


@contextmanager
def beside_vendor(name: str) -> Iterator[Side]:
    """The provider of this name, connected to a server of its own; both closed at the end."""
    with ProviderServer() as vendor:
        try:
            yield Side(name, providers.load(name, credentials(vendor.url)), vendor, WIRES[name])
        finally:
            providers.close()
