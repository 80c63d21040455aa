"""The same layers in other libraries."""
