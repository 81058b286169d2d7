"""The measurements of `make bench`: each a ratio of two sides in one run on one machine."""
