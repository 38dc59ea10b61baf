"""Providers in a process: imports, forks, proxies and TLS."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from midwatch.workers.providers.http.client import find_proxy
from tests.contract.provider_replies import VENDOR_REPLIES
from tests.contract.provider_requests import credentials, make_request
from tests.contract.provider_server import ProviderServer, drip, head, reply
from tests.patience import PATIENCE_S


def python(code: str, **environment: str) -> str:
    """Run code in a new interpreter and return its output."""
    command, env = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env=env, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("load", "loaded"),
    [
        ("", "[]"),
        ("providers.load('openai', given)", "['httpx2', 'openai']"),
        ("providers.load('gemini', given)", "['httpx2', 'openai']"),
        ("providers.load('anthropic', given)", "['anthropic', 'httpx2']"),
    ],
)
def test_sdks_are_imported_on_first_use(load: str, loaded: str) -> None:
    """Importing the registry imports no SDK. Loading a provider imports its own SDK only."""
    code = f"""
import sys
from midwatch.workers import providers
given = providers.Credentials(anthropic_api_key="k", openai_api_key="k", gemini_api_key="k")
{load}
print(sorted({{"anthropic", "openai", "httpx2"}} & sys.modules.keys()), end="")
"""
    assert python(code) == loaded


def test_a_forked_child_makes_its_own_client() -> None:
    """A forked child makes its own connections. With shared ones, two processes would read each other's answers."""
    code = """
import os
from midwatch.workers import providers
given = providers.Credentials(openai_api_key="k")
mine = providers.load("openai", given)
child = os.fork()
if child == 0:
    os._exit(0 if providers.load("openai", given) is not mine else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert providers.load("openai", given) is mine
print("fine", end="")
"""
    assert python(code) == "fine"


def test_calls_use_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls use the proxy that the environment names, and end at the same deadline."""
    with ProviderServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:pass@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        model = providers.load("openai-compatible", credentials("http://models.invalid"))
        proxy.answer_next(
            reply(200, VENDOR_REPLIES["openai-compatible"].text("through")), drip(head(200, {"content-length": "900"}))
        )
        assert model.complete(make_request()).text == "through"
        assert proxy.requests[0].path == "http://models.invalid/v1/chat/completions"
        assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")
        with pytest.raises(ModelError) as caught:
            model.complete(make_request(timeout_s=0.2))
        assert caught.value.failure.kind is FailureKind.TIMEOUT
        providers.close()


def test_choice_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for the scheme counts first, then `all_proxy`. Hosts in `no_proxy` use none. A bare host means http."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert find_proxy("https://api.example/v1") is None
    monkeypatch.setenv("all_proxy", "http://all:1")
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example,127.0.0.1")
    assert find_proxy("https://api.example/v1") == "http://proxy:3128"
    assert find_proxy("http://api.example/v1") == "http://all:1"
    assert find_proxy("https://models.inside.example/v1") is None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for 127.0.0.1 and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate")
    path = tmp_path / "server.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", str(tmp_path / "certificate")]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    path.write_bytes(path.read_bytes() + (tmp_path / "certificate").read_bytes())
    return path


def test_calls_over_tls(certificate: Path) -> None:
    """Calls work over TLS, a slow reply ends at the deadline, and an untrusted certificate is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ProviderServer(tls=context) as vendor:
        vendor.answer_next(
            reply(200, VENDOR_REPLIES["openai"].text("sealed")), drip(head(200, {"content-length": "900"}) + b" " * 900)
        )
        code = f"""
from tests.contract.provider_requests import make_request, credentials
from midwatch.orchestration.errors import ModelError
from midwatch.workers import providers
model = providers.load("openai", credentials("{vendor.url}"))
print(model.complete(make_request()).text)
try:
    model.complete(make_request(timeout_s=0.3))
except ModelError as error:
    print(error.failure.kind)
"""
        assert python(code, SSL_CERT_FILE=str(certificate)).split() == ["sealed", "timeout"]
        assert (len(vendor.requests), vendor.connections) == (2, 1)
        with pytest.raises(ModelError) as caught:
            providers.load("openai", credentials(vendor.url)).complete(make_request())
        providers.close()
        assert len(vendor.requests) == 2
    assert caught.value.failure.kind is FailureKind.CONNECTION
    assert "certificate" in caught.value.failure.detail
