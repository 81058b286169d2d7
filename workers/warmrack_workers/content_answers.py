"""What a node answers about its cache, by the path that it is asked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.cache_questions import (
    AdoptableQuestion,
    AdoptQuestion,
    ContentsQuestion,
    ExportQuestion,
    ImportQuestion,
    QuarantineQuestion,
)
from warmrack_store.database import Database
from warmrack_store.records import parse_record
from warmrack_workers.adopting import Adopter
from warmrack_workers.archives import Archives
from warmrack_workers.content_checks import ContentChecks
from warmrack_workers.node_server import Answer, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentAnswers:
    """Those of one node."""

    questions: Mapping[str, Answer]
    uploads: Mapping[str, Upload]

    @classmethod
    def of(
        cls, *, database: Database, cache_dir: Path, node: str, store: str, lease_seconds: float
    ) -> "ContentAnswers":
        checks = ContentChecks(database=database, cache_dir=cache_dir, node=node, store=store)
        adopter = Adopter(
            database=database,
            cache_dir=cache_dir,
            node=node,
            store=store,
            lease_seconds=lease_seconds,
        )
        archives = Archives(
            database=database,
            cache_dir=cache_dir,
            node=node,
            store=store,
            lease_seconds=lease_seconds,
        )
        return cls(
            questions={
                "/cache/verify": lambda asked: checks.check(parse_record(ContentsQuestion, asked)),
                "/cache/quarantine": lambda asked: checks.quarantine(
                    parse_record(QuarantineQuestion, asked)
                ),
                "/cache/adoptable": lambda asked: adopter.list_adoptable(
                    parse_record(AdoptableQuestion, asked)
                ),
                "/cache/adopt": lambda asked: adopter.adopt(parse_record(AdoptQuestion, asked)),
                "/cache/export": lambda asked: archives.export(parse_record(ExportQuestion, asked)),
            },
            uploads={
                "/cache/import": lambda asked, source: archives.take_in(
                    parse_record(ImportQuestion, asked), source
                )
            },
        )
