"""Configuration of Sphinx; docs/build.sh runs it on the pages that docs/manual.py prepares."""
import pathlib
import re
import shutil
import sys

from docutils import nodes
from sphinx.transforms import SphinxTransform

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import manual  # noqa: E402

project = "pare"
release = ".".join(re.findall(r"PARE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)",
                              (ROOT / "include/pare/core/version.hpp").read_text()))
root_doc = "docs/README"
html_title = f"pare {release}"
html_theme = "furo"
html_copy_source = False
extensions = ["myst_parser", "breathe", "sphinx.ext.mathjax"]
highlight_language = "text"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

breathe_projects = {"pare": str(ROOT / "build-docs/xml")}
breathe_default_project = "pare"
breathe_show_include = False  # docs/manual.py names the header of everything

# Lines of code have up to 100 characters, which the theme would cut.
STATIC = ROOT / "build-docs/static"
STATIC.mkdir(parents=True, exist_ok=True)
(STATIC / "wide.css").write_text("@media (min-width: 91em) { .content { width: 55em; } }\n")
html_static_path = [str(STATIC)]
html_css_files = ["wide.css"]

# Formulas are drawn without the web where the package libjs-mathjax (2.7) is installed.
MATHJAX = pathlib.Path("/usr/share/javascript/mathjax")
if MATHJAX.is_dir():
    mathjax_path = "mathjax/MathJax.js"
    mathjax2_config = {"jax": ["input/TeX", "output/CommonHTML"], "extensions": ["tex2jax.js"],
                       "TeX": {"extensions": ["AMSmath.js", "AMSsymbols.js"]},
                       "tex2jax": {"processClass": "tex2jax_process|mathjax_process|math|output_area",
                                   "ignoreClass": "tex2jax_ignore|mathjax_ignore|document"}}
    static = STATIC / "mathjax"
    for part in ("MathJax.js", "extensions", "jax/element", "jax/input/TeX",
                 "jax/output/CommonHTML", "fonts/HTML-CSS/TeX/woff"):
        if (MATHJAX / part).is_dir():
            shutil.copytree(MATHJAX / part, static / part, dirs_exist_ok=True)
        else:
            static.mkdir(exist_ok=True)
            shutil.copyfile(MATHJAX / part, static / part)


class LinkSymbols(SphinxTransform):
    """A code span of a page that names one symbol of the reference becomes a link to it."""

    default_priority = 500
    symbols = None

    def apply(self, **kwargs):
        if self.env.docname.startswith("reference/"):
            return
        if LinkSymbols.symbols is None:
            LinkSymbols.symbols = manual.read_symbols()
        find = getattr(self.document, "findall", None) or self.document.traverse  # docutils 0.17
        for literal in list(find(nodes.literal)):
            if isinstance(literal.parent, (nodes.reference, nodes.title)):
                continue
            name = LinkSymbols.symbols.find(literal.astext())
            if name:
                page, anchor, _ = LinkSymbols.symbols.places[name]
                url = self.app.builder.get_relative_uri(self.env.docname, page) + "#" + anchor
                link = nodes.reference("", "", refuri=url, internal=True)
                literal.replace_self(link)
                link += literal


def setup(app):
    app.add_transform(LinkSymbols)
    return {"parallel_read_safe": True}
