"""Which addresses may be asked in a Hub's name."""

import pytest

from warmrack_store.errors import HubUnavailable
from warmrack_store.hub import HubFacts
from warmrack_store.hub_hosts import check_address, is_same_origin, may_ask
from warmrack_store.refs import ModelRef

PUBLIC = "https://huggingface.co"
OWN = "https://hub.example:8443"
LOCAL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("url", "home", "allowed", "may"),
    [
        (f"{PUBLIC}/org/name", PUBLIC, (), True),
        ("http://huggingface.co/org/name", PUBLIC, (), False),
        ("https://cdn-lfs.huggingface.co/x?sig=1", PUBLIC, (), True),
        ("https://cas-bridge.xethub.hf.co/x", PUBLIC, (), True),
        ("https://evilhuggingface.co/x", PUBLIC, (), False),
        ("https://cdn-lfs.huggingface.co/x", OWN, (), False),
        ("https://hub.example/x", OWN, (), True),
        ("https://store.example/x", OWN, (), False),
        ("https://store.example/x", OWN, ("store.example",), True),
        ("https://store.example/x", OWN, ("store.example:443",), True),
        ("https://store.example:9/x", OWN, ("store.example:443",), False),
        ("http://store.example/x", OWN, ("store.example",), True),
        ("http://store.example/x", OWN, ("store.example:443",), False),
        (f"{LOCAL}/x", LOCAL, (), True),
        ("http://127.0.0.1:9/x", LOCAL, (), True),
        ("http://localhost:8000/x", LOCAL, (), False),
        (f"{LOCAL}/x", PUBLIC, (), False),
        ("http://hub.example/x", "http://hub.example", (), False),
        ("http://hub.example/x", "http://hub.example", ("hub.example",), True),
        ("https://user:pw@hub.example/x", OWN, (), False),
        ("file:///etc/passwd", OWN, ("",), False),
        ("https://[bad/", OWN, (), False),
        ("https://hub.example:port/", OWN, (), False),
    ],
)
def test_only_known_hosts_are_asked(
    url: str, home: str, allowed: tuple[str, ...], may: bool
) -> None:
    assert may_ask(url, home, allowed) == may


def test_refusal_shows_neither_a_password_nor_a_signed_path() -> None:
    with pytest.raises(HubUnavailable, match=r"leads to https://store\.example,") as caught:
        check_address("https://me:hidden@store.example/x?sig=secret", OWN, ())
    assert "hidden" not in caught.value.message + caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint


def test_token_is_for_the_hubs_own_origin() -> None:
    assert is_same_origin("https://hub.example:8443/x", OWN)
    assert is_same_origin("https://huggingface.co:443/x", PUBLIC)
    for other in ("https://hub.example/x", "http://hub.example:8443/x", "https://x.example:8443"):
        assert not is_same_origin(other, OWN)


def test_plain_http_is_for_a_hub_on_this_machine() -> None:
    hub = HubFacts("http://hub.example")
    with pytest.raises(HubUnavailable, match="not allowed"):
        hub.find_ref(ModelRef(repository="org/name"), None)
    hub.close()
