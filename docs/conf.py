"""The documentation as a site: `make docs` writes build/docs, and a warning is an error."""

import pvnas

project = "pvnas"
author = "The pvnas authors"
copyright = author
version = release = pvnas.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"pvnas {version}"
html_copy_source = False
html_show_copyright = False
