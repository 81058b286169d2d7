"""The known stand-ins of models: none, since only exact requests are served."""

CATALOG_VERSION = "none"
