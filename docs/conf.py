from __future__ import annotations

from importlib.metadata import version as installed_version

from docutils import nodes
from latex2mathml.converter import convert

project = "fffcpu"
author = "The fffcpu developers"
copyright = "2026, The fffcpu developers"
release = version = installed_version("fffcpu")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]  # of gallery, what Sphinx reads is in gallery_built

html_theme = "furo"
html_title = f"fffcpu {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]  # formulas, and pages on phones and on paper
html_math_renderer = "mathml"  # `setup` registers it

# Markdown: $...$ and $$...$$ are mathematics, headings down to the third level can be linked to.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings: single backticks are links where they name something of ours and code elsewhere.
default_role = "autolink"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameter lists say it, in words
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch"]  # gigabytes, of which the reference needs nothing
numpydoc_show_class_members = False  # autodoc lists them once, in the order of the source
# A docstring must name the parameters that exist, in their order, with a space before the colon.
numpydoc_validation_checks = {"PR02", "PR03", "PR10"}

# The scripts in gallery/ run when the pages are built; what they print and draw becomes pages.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "gallery_built",
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,  # pages of one tree are the same wherever they were built
    "show_signature": False,
}


def mathml(node, display):
    """Return the MathML of a formula in TeX, which browsers draw without scripts and offline."""
    markup = convert(node.astext(), display=display)
    if "\\" in markup:
        raise ValueError(f"no MathML for a command in the formula {node.astext()!r}")
    return markup


def visit_inline(translator, node):
    """Write a formula in a line of text."""
    translator.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(translator, node):
    """Write a displayed formula, which scrolls where it is wider than the page."""
    translator.body.append(f'<div class="math">{mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
