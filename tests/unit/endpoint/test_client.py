import pytest

from r1mm.errors import BadInput
from tests.asking import endpoint


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:8000/v1", r"is no base URL; give one such as http://127\.0\.0\.1:8000/v1"),
        ("ftp://host/v1", "is no base URL"),
        ("http://", "is no base URL"),
        ("http://host:port/v1", "is no base URL"),
        ("http://host/v1\n", "is no base URL"),
        ("http://host/v1/chat/completions", r"is the address of requests; leave out what comes after /v1"),
        ("https://me:sk-planted-4f1c@host/v1", r"^the base URL of host has a user or a password in it"),
    ],
)
def test_what_is_no_address_of_an_api_is_refused(address: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        endpoint(address)


def test_whether_others_can_read_what_is_sent() -> None:
    readable = {"http://host/v1": True, "https://host/v1": False, "http://localhost:1/v1": False}
    assert {address: endpoint(address).unencrypted for address in readable} == readable
    assert endpoint("https://host/v1?api-version=secret").shown == "https://host/v1"
