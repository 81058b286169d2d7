"""How Alembic reaches the database: one connection, the URL from the caller."""

from alembic import context

from warmrack_store.database import _make_engine
from warmrack_store.schema import metadata

engine = _make_engine(context.config.attributes["url"])
with engine.begin() as connection:
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True
    )
    context.run_migrations()
engine.dispose()
