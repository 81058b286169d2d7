"""What models are made of, by the config that they are built from; the newest count is kept."""

from collections.abc import Mapping

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.records import parse_record
from warmrack_store.schema import skeletons
from warmrack_store.skeleton import Skeleton, digest_config


def find_skeleton(tx: Transaction, config: Mapping[str, object]) -> Skeleton | None:
    key = skeletons.c.config_digest == digest_config(config)
    row = tx.find(sa.select(skeletons.c.record).where(key))
    return parse_record(Skeleton, row["record"]) if row else None


def put_skeleton(tx: Transaction, config: Mapping[str, object], skeleton: Skeleton) -> None:
    digest = digest_config(config)
    tx.serialize(f"skeleton:{digest}")
    values = {"record": skeleton.model_dump(mode="json"), "created_at": tx.now}
    key = skeletons.c.config_digest == digest
    if not tx.change(skeletons.update().where(key).values(**values)):
        tx.execute(skeletons.insert().values(config_digest=digest, **values))
