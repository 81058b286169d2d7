"""Lists of the service, followed from page to page."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from warmrack.answers import read_json, read_record
from warmrack.steps import Call, Conversation, send
from warmrack_store.errors import Defect

AnyItem = TypeVar("AnyItem", bound=BaseModel)


def list_items(
    kind: type[AnyItem], path: str, params: Mapping[str, str], *, limit: int | None = None
) -> Conversation[tuple[AnyItem, ...]]:
    """The items of every page, at most `limit`."""
    items: list[AnyItem] = []
    query = dict(params)
    while True:
        page = check_page(read_json((yield from send(Call(method="GET", path=path, params=query)))))
        items.extend(read_record(kind, item) for item in page["items"])
        following = page.get("next")
        if following is None or (limit is not None and len(items) >= limit):
            return tuple(items if limit is None else items[:limit])
        query["after"] = str(following)


def check_page(page: Any) -> dict[str, Any]:
    """`page` itself where it is one of the service's lists; Defect else."""
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        raise Defect("the service's list has no items")
    return page
