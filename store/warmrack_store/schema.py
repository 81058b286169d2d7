"""The tables. Times are UTC epoch seconds by the database's clock; sizes are bytes."""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Size = sa.BigInteger
Time = sa.Double


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("kind"),
    _text("tenant"),
    _text("state"),
    _text("cause", nullable=True),
    _text("model"),
    sa.Column("submission", sa.JSON, nullable=False),
    _text("fingerprint", nullable=True),
    _text("joined_to", nullable=True),
    _text("parent", nullable=True),
    _text("idempotency_key", nullable=True),
    _text("body_digest"),
    _text("secret_id", nullable=True),
    _text("rights", nullable=True),
    sa.Column("rank", sa.Integer, nullable=False),
    _text("asked_node", nullable=True),
    _text("target_node", nullable=True),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("load_deaths", sa.Integer, nullable=False, server_default="0"),
    _text("holder", nullable=True),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease_until", Time, nullable=True),
    _text("cancel_cause", nullable=True),
    _text("node", nullable=True),
    _text("resolution_id", nullable=True),
    _text("resident_id", nullable=True),
    _text("receipt_id", nullable=True),
    sa.Column("bytes_done", Size, nullable=False, server_default="0"),
    sa.Column("bytes_total", Size, nullable=False, server_default="0"),
    sa.Column("rate", sa.Double, nullable=True),
    _text("waiting_for", nullable=True),
    sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("timeout_seconds", sa.Double, nullable=True),
    sa.Column("expires_at", Time, nullable=True),
    sa.Column("not_before", Time, nullable=False, server_default="0"),
    sa.Column("rung_at", Time, nullable=False, server_default="0"),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("updated_at", Time, nullable=False),
    sa.Column("started_at", Time, nullable=True),
    sa.Column("finished_at", Time, nullable=True),
    sa.Index("ix_jobs_claim", "state", "rank", "created_at"),
    sa.Index("ix_jobs_live", "fingerprint", "tenant", "state"),
    sa.Index("ix_jobs_joined_to", "joined_to"),
    sa.Index("ix_jobs_parent", "parent"),
    sa.Index("ix_jobs_holder", "holder"),
    sa.Index("ix_jobs_idempotency", "tenant", "idempotency_key", unique=True),
)

job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    _text("job_id"),
    sa.Column("at", Time, nullable=False),
    _text("type"),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("ix_job_events_job_id", "job_id", "id"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("tenant", nullable=True),
    _text("name", nullable=True),
    sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Index("ix_secrets_name", "tenant", "name", unique=True),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("mark", sa.Text, primary_key=True),
    sa.Column("refusal", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("ciphertext", sa.LargeBinary, nullable=True),
    sa.Column("asked_at", Time, nullable=False),
)

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    _text("state"),
    _text("url", nullable=True),
    _text("mirror_url", nullable=True),
    _text("machine"),
    _text("store"),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("tasks", sa.JSON, nullable=False),
    sa.Column("versions", sa.JSON, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("drains", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("started_at", Time, nullable=False),
    sa.Column("heartbeat_at", Time, nullable=False),
)

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("facts", sa.JSON, nullable=False),
    _text("weights"),
    _text("tensor_root", nullable=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Index("ix_revisions_weights", "weights"),
    sa.Index("ix_revisions_tensor_root", "tensor_root"),
)

refs = sa.Table(
    "refs",
    metadata,
    sa.Column("asked", sa.Text, primary_key=True),
    sa.Column("revision", sa.Text, primary_key=True),
    sa.Column("fact", sa.JSON, nullable=False),
    sa.Column("seen_at", Time, nullable=False),
)

resolutions = sa.Table(
    "resolutions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("repository"),
    _text("commit"),
    _text("cache_key"),
    sa.Column("record", sa.JSON, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Index("ix_resolutions_cache_key", "cache_key"),
)

copies = sa.Table(
    "copies",
    metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("commit", sa.Text, primary_key=True),
    sa.Column("selection", sa.Text, primary_key=True),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("bytes_done", Size, nullable=False),
    sa.Column("bytes_total", Size, nullable=False),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("updated_at", Time, nullable=False),
    sa.Column("last_used_at", Time, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False, server_default="1"),
    sa.Column("leaving", sa.Boolean, nullable=False, server_default=sa.false()),
)

reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    _text("store"),
    sa.Column("epoch", sa.Integer, nullable=False),
    _text("node"),
    _text("folder"),
    sa.Column("blobs", sa.JSON, nullable=False),
    sa.Column("at", Time, nullable=False),
    sa.Index("ix_reservations_store", "store"),
)

stores = sa.Table(
    "stores",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("used_bytes", Size, nullable=False),
    sa.Column("room_bytes", Size, nullable=False),
    sa.Column("free_bytes", Size, nullable=False),
    sa.Column("total_bytes", Size, nullable=False),
    sa.Column("quota_bytes", Size, nullable=True),
    sa.Column("seen_at", Time, nullable=False),
)

tensors = sa.Table(
    "tensors",
    metadata,
    sa.Column("file_digest", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    _text("dtype"),
    sa.Column("shape", sa.JSON, nullable=False),
    _text("leaf"),
)

pieces = sa.Table(
    "pieces",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("piece", sa.Integer, primary_key=True),
    _text("blake3"),
)

arrivals = sa.Table(
    "arrivals",
    metadata,
    sa.Column("repository", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    _text("node"),
    _text("store"),
    _text("upstream", nullable=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("until", Time, nullable=False),
)

hub_waits = sa.Table(
    "hub_waits",
    metadata,
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("until", Time, nullable=False),
)

skeletons = sa.Table(
    "skeletons",
    metadata,
    sa.Column("config_digest", sa.Text, primary_key=True),
    sa.Column("record", sa.JSON, nullable=False),
    sa.Column("created_at", Time, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    _text("kind"),
    _text("holder", nullable=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("until", Time, nullable=False),
)

residents = sa.Table(
    "residents",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("state"),
    _text("cache_key"),
    _text("resolution_id"),
    _text("repository"),
    _text("commit"),
    _text("precision"),
    _text("node"),
    sa.Column("node_epoch", sa.Integer, nullable=False),
    _text("device"),
    sa.Column("pid", sa.Integer, nullable=True),
    sa.Column("start_time", sa.BigInteger, nullable=True),
    _text("socket", nullable=True),
    sa.Column("charged_bytes", Size, nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("keep_alive_seconds", sa.Double, nullable=False),
    sa.Column("in_flight", sa.Integer, nullable=False, server_default="0"),
    sa.Column("drain_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    _text("receipt_id", nullable=True),
    _text("cause", nullable=True),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("warm_at", Time, nullable=True),
    sa.Column("last_used_at", Time, nullable=False),
    sa.Column("updated_at", Time, nullable=False),
    sa.Index("ix_residents_cache_key", "cache_key", "state"),
    sa.Index("ix_residents_node", "node", "state"),
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("resolution_id"),
    _text("level"),
    _text("tensor_root", nullable=True),
    sa.Column("record", sa.JSON, nullable=False),
    sa.Column("created_at", Time, nullable=False),
)

locks = sa.Table(
    "locks",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("entries", sa.JSON, nullable=False),
    _text("tenant"),
    sa.Column("created_at", Time, nullable=False),
)

rates = sa.Table(
    "rates",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("updated_at", Time, nullable=False),
)

egress_ledger = sa.Table(
    "egress_ledger",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    _text("job_id"),
    _text("tenant"),
    _text("node"),
    _text("repository"),
    _text("commit"),
    sa.Column("hub_bytes", Size, nullable=False),
    sa.Column("peer_bytes", Size, nullable=False),
    sa.Column("local_bytes", Size, nullable=False),
    sa.Column("deduplicated_bytes", Size, nullable=False),
    sa.Column("at", Time, nullable=False),
    sa.Index("ix_egress_ledger_job_id", "job_id"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    _text("job_id"),
    _text("kind"),
    _text("address"),
    sa.Column("created_at", Time, nullable=False),
    sa.Index("ix_outbox_job_id", "job_id"),
)
