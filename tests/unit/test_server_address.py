"""The URL of a Redis server in both libraries' spellings, and the URLs that are refused."""

from __future__ import annotations

import ssl

import pytest
import redis
from kombu.utils.url import parse_url
from pydantic import ValidationError

from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.server_address import AddressError, read_address
from midwatch.workers.settings import Settings

TLS = "rediss://h:6380/2"


@pytest.mark.parametrize("word", ["none", "CERT_NONE", "cert_none", "ssl.CERT_NONE", "NONE"])
def test_both_spellings_of_cert_reqs_reach_both_libraries(word: str) -> None:
    """redis-py gets its value, and kombu the same one. Before, `CERT_NONE` failed at redis-py's first command."""
    url = f"{TLS}?ssl_cert_reqs={word}"
    made = connect_redis(url).connection_pool.make_connection()
    assert isinstance(made, redis.SSLConnection)
    assert made.cert_reqs is ssl.CERT_NONE
    assert make_app(Settings(redis_url=url)).connection_for_read().ssl["ssl_cert_reqs"] is ssl.CERT_NONE


@pytest.mark.parametrize("url", [TLS, f"{TLS}?ssl_cert_reqs=required", f"{TLS}?ssl_cert_reqs=CERT_REQUIRED"])
def test_without_a_word_both_libraries_check_the_certificate(url: str) -> None:
    """kombu's own default is to check nothing, with a warning."""
    assert connect_redis(url).connection_pool.make_connection().cert_reqs is ssl.CERT_REQUIRED
    assert make_app(Settings(redis_url=url)).connection_for_read().ssl["ssl_cert_reqs"] is ssl.CERT_REQUIRED


def test_other_options_of_tls_reach_both_libraries() -> None:
    """Files, ciphers, and the check of the host's name."""
    url = f"{TLS}?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False&ssl_password=pw"
    made = connect_redis(url).connection_pool.make_connection()
    assert (made.ca_certs, made.certfile, made.keyfile, made.check_hostname) == ("/ca.pem", "/c.pem", "/k.pem", False)
    given = make_app(Settings(redis_url=url)).connection_for_read().ssl
    assert (given["ssl_ca_certs"], given["ssl_check_hostname"], given["ssl_password"]) == ("/ca.pem", False, "pw")


@pytest.mark.parametrize(
    ("url", "host", "db", "username", "password"),
    [
        ("redis://h", "h", 0, None, None),
        ("valkey://h/3", "h", 3, None, None),
        ("redis://h/?db=3", "h", 3, None, None),
        ("redis://h/1?virtual_host=3", "h", 3, None, None),
        ("redis://:p%40ss%2Fw%23%3F@h/3", "h", 3, None, "p@ss/w#?"),
        ("redis://us%3Aer:p@h:7000/3", "h", 3, "us:er", "p"),
        ("redis://h/3?username=u&password=p%26w", "h", 3, "u", "p&w"),
        ("redis://[::1]:7000/3", "::1", 3, None, None),
    ],
)
def test_a_url_means_the_same_to_both_libraries(
    url: str, host: str, db: int, username: str | None, password: str | None
) -> None:
    """Host, database, user and password, also in percent encoding."""
    made = connect_redis(url).connection_pool.connection_kwargs
    assert (made["host"], made["db"], made["username"], made["password"]) == (host, db, username, password)
    broker = parse_url(read_address(url).for_celery())
    assert (broker["hostname"], broker["virtual_host"], broker["userid"], broker["password"]) == (
        host,
        str(db),
        username,
        password,
    )


@pytest.mark.parametrize(
    "url",
    ["unix:///run/a b.sock?db=2", "redis+socket:///run/a b.sock?virtual_host=2", "unix://:p@/run/a%20b.sock?db=2"],
)
def test_a_unix_socket_has_both_spellings(url: str) -> None:
    """redis-py calls it `unix://`, Celery `redis+socket://`."""
    client = connect_redis(url)
    assert client.connection_pool.connection_class is redis.UnixDomainSocketConnection
    assert (client.connection_pool.connection_kwargs["path"], client.connection_pool.connection_kwargs["db"]) == (
        "/run/a b.sock",
        2,
    )
    connection = make_app(Settings(redis_url=url)).connection_for_read()
    assert connection.transport_cls == "redis"
    assert "virtual_host=2" in connection.hostname


def test_the_same_server_in_two_spellings_is_one_server() -> None:
    """So the broker may be the state's server in another spelling, and steps are handed off."""
    one = "rediss://:p@h/0?ssl_cert_reqs=none"
    assert Settings(redis_url=one, broker_url="rediss://:p@h:6379?ssl_cert_reqs=CERT_NONE").one_server
    assert Settings(redis_url="unix:///s", broker_url="redis+socket:///s").one_server
    assert not Settings(redis_url=one, broker_url="rediss://:p@h/1?ssl_cert_reqs=none").one_server
    assert not Settings(redis_url=one, broker_url="amqp://h//").one_server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rediss://h?ssl_cert_reqs=NO", "ssl_cert_reqs: expected none, optional or required"),
        ("redis://h?ssl_cert_reqs=none", "needs rediss://"),
        ("rediss://h?ssl_cert_req=none", "unknown option 'ssl_cert_req'"),
        ("redis://h/zero", "expected the number of a database"),
        ("redis://h?db=-1", "expected the number of a database"),
        ("redis://h?socket_timeout=long", "socket_timeout: expected a number"),
        ("sentinel://h:26379", "Sentinel is not supported"),
        ("redis+cluster://h", "Cluster is not supported"),
        ("redis://h;redis://i", "one server"),
        ("redis://", "expected redis://HOST:PORT/DB"),
        ("http://h", "expected redis://HOST:PORT/DB"),
        ("h:6379", "expected redis://HOST:PORT/DB"),
        ("redis://:pa#secret@h/0", "%23"),
        ("redis://:pa/secret@h/0", ""),
        ("redis://:pa?secret@h/0", ""),
        ("redis://[secret@h/0", ""),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_reason(url: str, said: str) -> None:
    """It is refused for the state and for the broker, before anything connects. No part of a password is shown."""
    with pytest.raises(AddressError) as caught:
        read_address(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=url)
    assert "secret" not in str(refused.value)


def test_a_broker_that_is_not_redis_is_left_as_it_is() -> None:
    """Only kombu reads its URL, which may have several hosts."""
    url = "amqp://u:p@one//;amqp://u:p@two//"
    assert make_app(Settings(broker_url=url)).conf.broker_url == url
