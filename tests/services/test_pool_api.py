"""What callers ask of residents over HTTP, and that their nodes hear of it at once."""

import pytest

from tests.services.hub_rights import note_public
from tests.services.listening import listening, next_id
from tests.services.residing import put_resident
from tests.services.test_api import serving
from warmrack_daemon.services import Services
from warmrack_store.ledgers import residents


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "res_n0/pin"), ("DELETE", "res_n0/pin"), ("DELETE", "org/name")],
)
def test_the_node_of_a_resident_is_woken_for_what_is_asked_of_it(
    services: Services, method: str, path: str
) -> None:
    put_resident(services.database, "n0")
    note_public(services.rights, "org/name")
    with serving(services) as api, listening(services.wakeups) as heard:
        assert api.request(method, f"/api/v1/residents/{path}").status_code in (200, 202)
        assert next_id(heard) == "node:n0"


def test_a_pin_is_in_the_row_and_can_be_taken_off(services: Services) -> None:
    put_resident(services.database, "n0")
    with serving(services) as api:
        for method, pinned in (("POST", True), ("DELETE", False)):
            [shown] = api.request(method, "/api/v1/residents/res_n0/pin").json()["items"]
            with services.database.read() as tx:
                [row] = residents.list_live(tx)
            assert (shown["pinned"], row.pinned) == (pinned, pinned)
