"""Finds out who answered a call, by the headers: the provider's API, or a gateway, a proxy or a firewall in front of it."""

from __future__ import annotations

from collections.abc import Mapping

MAX_CHARS = 64
"""Most characters that are shown of a header."""

MARKS: Mapping[str, str] = {
    "cf-mitigated": "cloudflare",
    "x-amzn-waf-action": "aws waf",
    "x-squid-error": "squid",
    "x-iinfo": "imperva",
    "x-sucuri-id": "sucuri",
    "akamai-grn": "akamai",
    "x-amz-cf-id": "cloudfront",
    "x-azure-ref": "azure front door",
    "apim-request-id": "azure api management",
    "x-litellm-call-id": "litellm",
    "x-portkey-trace-id": "portkey",
    "helicone-id": "helicone",
    "x-kong-request-id": "kong",
    "x-envoy-upstream-service-time": "envoy",
    "cf-ray": "cloudflare",
}
"""A header that only one product writes -> the product. `server` is asked first: a proxy writes its own name there."""

IDS = (
    "cf-ray", "akamai-grn", "x-amz-cf-id", "x-amzn-requestid", "x-azure-ref", "apim-request-id", "x-iinfo", "x-sucuri-id",
    "x-kong-request-id", "x-litellm-call-id", "x-portkey-trace-id", "x-squid-error", "cf-mitigated", "x-amzn-waf-action",
    "request-id", "x-request-id",
)  # fmt: skip
"""Headers with ids that an operator needs to find the call, the most useful first."""

FIREWALL = ("cf-mitigated", "x-amzn-waf-action")
"""Headers of a firewall that answered in the place of the server. Sources: Cloudflare's and AWS WAF's documentation."""

_LONGEST_IDS = 2


def name_responder(headers: Mapping[str, str]) -> str:
    """Name who answered: the `server` header, else a header that only one product writes, else `via`. May be empty."""
    if server := _show(headers.get("server")):
        return server
    for mark, name in MARKS.items():
        if mark in headers:
            return name
    return _show(headers.get("via"))


def list_ids(headers: Mapping[str, str]) -> str:
    """List the ids by which the operator finds the call, with the names of their headers."""
    found = [f"{name} {value}" for name in IDS if (value := _show(headers.get(name)))]
    return ", ".join(found[:_LONGEST_IDS])


def is_firewall(headers: Mapping[str, str]) -> bool:
    """Did a firewall answer? Its body may look like anything."""
    return any(name in headers for name in FIREWALL)


def _show(value: str | None) -> str:
    return "".join(char for char in (value or "")[:MAX_CHARS] if char.isprintable()).strip()
