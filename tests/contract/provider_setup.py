"""A provider that is connected to a fake vendor, for the tests of faults."""

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
from tests.contract.provider_replies import VENDOR_REPLIES, VendorReplies
from tests.contract.provider_requests import credentials, make_request
from tests.contract.provider_server import ProviderServer, Reply


@dataclass(frozen=True)
class Setup:
    """A provider, its fake vendor, and the vendor's replies."""

    name: str
    model: Provider
    vendor: ProviderServer
    replies: VendorReplies

    def error(self, answer: Reply, request: ModelRequest | None = None) -> ModelError:
        """Make a call that the vendor answers with this reply, and return its error."""
        self.vendor.answer_next(answer)
        with pytest.raises(ModelError) as caught:
            self.model.complete(request or make_request())
        return caught.value

    def failure(self, answer: Reply, request: ModelRequest | None = None) -> Failure:
        """Make a call that the vendor answers with this reply, and return its failure."""
        return self.error(answer, request).failure


@contextmanager
def connect_to_fake_vendor(name: str) -> Iterator[Setup]:
    """Connect a provider to a new fake vendor, and close both at the end."""
    with ProviderServer() as vendor:
        try:
            yield Setup(name, providers.load(name, credentials(vendor.url)), vendor, VENDOR_REPLIES[name])
        finally:
            providers.close()
