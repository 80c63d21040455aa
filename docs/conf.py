from __future__ import annotations

from importlib.metadata import version as installed_version

project = "fffcpu"
author = "The fffcpu developers"
copyright = "2026, The fffcpu developers"
release = version = installed_version("fffcpu")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"fffcpu {release}"

# Markdown: $...$ and $$...$$ are mathematics, headings down to the third level can be linked to.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings: single backticks are links where they name something of ours and code elsewhere.
default_role = "autolink"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameter lists say it, in words
autodoc_preserve_defaults = True
numpydoc_show_class_members = False  # autodoc lists them once, in the order of the source
# A docstring must name the parameters that exist, in their order, with a space before the colon.
numpydoc_validation_checks = {"PR02", "PR03", "PR10"}
