"""What a test may do to a running Hub, over `POST /_hub/{operation}`."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.access import Readers
from tests.hub.answers import Answer, Request, json_answer
from tests.hub.faults import Origin, rule_from_json
from tests.hub.journal import Journal, Selection, Traffic
from tests.hub.models_api import HubSettings
from tests.hub.repositories import RefKind, Repositories
from tests.hub.rules import Rules
from tests.hub.xet import XetStorage

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    repositories: Repositories
    readers: Readers
    rules: Rules
    journal: Journal
    settings: HubSettings

    def answer(self, request: Request) -> Answer:
        """The result as JSON; a wrong call is a 400 that says why."""
        operation = request.path.rpartition("/")[2].replace("-", "_")
        called = getattr(self, f"do_{operation}", None)
        if called is None or request.method != "POST":
            return json_answer({"error": f"no operation {operation!r}"}, status=404)
        try:
            return json_answer(called(json.loads(request.body or b"{}")))
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            return json_answer({"error": f"{type(error).__name__}: {error}"}, status=400)

    def do_add_repository(self, arguments: Arguments) -> str:
        fields = dict(arguments)
        name, folder = fields.pop("name"), Path(fields.pop("folder"))
        return self.repositories.add(name, folder, **fields).sha

    def do_add_commit(self, arguments: Arguments) -> str:
        folder = arguments.get("folder")
        commit = self.repositories.commit(
            arguments["name"],
            branch=arguments["branch"],
            folder=None if folder is None else Path(folder),
            files=_decode(arguments.get("files") or {}),
            removed=arguments["removed"],
            title=arguments["title"],
        )
        return commit.sha

    def do_force_push(self, arguments: Arguments) -> str:
        files = _decode(arguments["files"])
        return self.repositories.force_push(
            arguments["name"], branch=arguments["branch"], files=files
        ).sha

    def do_remove_commit(self, arguments: Arguments) -> None:
        self.repositories.remove_commit(arguments["name"], arguments["sha"])

    def do_set_ref(self, arguments: Arguments) -> None:
        kind = RefKind(arguments["kind"])
        self.repositories.set_ref(arguments["name"], kind, arguments["ref"], arguments["revision"])

    def do_change_repository(self, arguments: Arguments) -> None:
        self.repositories.change(**arguments)

    def do_move_repository(self, arguments: Arguments) -> None:
        self.repositories.move(arguments["name"], arguments["new_name"])
        self.readers.rename(arguments["name"], arguments["new_name"])

    def do_remove_repository(self, arguments: Arguments) -> None:
        self.repositories.remove(arguments["name"])

    def do_get_commit(self, arguments: Arguments) -> dict[str, Any]:
        commit = self.repositories.get(arguments["name"]).get_commit(arguments["revision"])
        etags = {path: held.etag for path, held in commit.files.items()}
        sizes = {path: held.size_bytes for path, held in commit.files.items()}
        return {"sha": commit.sha, "etags": etags, "sizes_bytes": sizes}

    def do_grant(self, arguments: Arguments) -> None:
        self.readers.grant(**arguments)

    def do_revoke(self, arguments: Arguments) -> None:
        self.readers.revoke(**arguments)

    def do_configure(self, arguments: Arguments) -> None:
        for name, value in arguments.items():
            setattr(self.settings, name, value)

    def do_serve_xet(self, arguments: Arguments) -> None:
        folder = arguments["folder"]
        self.settings.xet = None if folder is None else XetStorage(Path(folder))

    def do_add_fault(self, arguments: Arguments) -> int:
        return self.rules.add(rule_from_json(arguments))

    def do_clear_faults(self, arguments: Arguments) -> None:
        self.rules.clear(arguments["numbers"])

    def do_list_fired(self, _arguments: Arguments) -> dict[int, int]:
        return self.rules.list_fired()

    def do_count(self, _arguments: Arguments) -> list[dict[str, Any]]:
        return self.journal.count()

    def do_list_requests(self, arguments: Arguments) -> list[dict[str, Any]]:
        entries = self.journal.list_entries(_selection(arguments["selection"]))
        return [entry.to_json() for entry in entries]

    def do_reset_counts(self, _arguments: Arguments) -> None:
        self.journal.reset()

    def do_wait(self, arguments: Arguments) -> bool:
        return self.journal.wait(
            _selection(arguments["selection"]),
            requests=arguments["requests"],
            sent_bytes=arguments["sent_bytes"],
            timeout_seconds=arguments["timeout_seconds"],
        )


def _decode(files: Mapping[str, str]) -> dict[str, bytes]:
    return {path: base64.b64decode(body) for path, body in files.items()}


def _selection(arguments: Arguments) -> Selection:
    origin, traffic = arguments.get("origin"), arguments.get("traffic")
    return Selection(
        origin=Origin(origin) if origin else None,
        method=arguments.get("method"),
        path=arguments.get("path"),
        repository=arguments.get("repository"),
        traffic=Traffic(traffic) if traffic else None,
    )
