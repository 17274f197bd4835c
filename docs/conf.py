"""Sphinx: the documentation, from Markdown (MyST) and docstrings. Builds without a network."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

# Airflow creates its home on import: do not use the home of the user who builds the docs.
_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from airflow_provider_hokusai_dns import __version__  # noqa: E402

project = "airflow-provider-hokusai-dns"
author = "Hokusai"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "from_code"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Hokusai DNS {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["hokusai.css"]
html_show_copyright = False
# Nothing is fetched while it is read either: no fonts, no scripts from elsewhere.
html_theme_options = {"navigation_with_keys": False}

myst_heading_anchors = 4
myst_enable_extensions = ["deflist", "colon_fence", "fieldlist"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# Names of other projects, and names of ours that no reader needs a page for. Everything else has
# to be found: a class that is renamed breaks the build, not the reader.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(airflow|aiohttp|asyncio|collections|datetime|enum|mlflow|pathlib|socket|threading|types"
        r"|typing)\..*",
    ),
    (
        "py:.*",
        r"(AbstractResolver|ActiveRun|Any|Callable|Context|DAG|Iterable|Iterator|Mapping"
        r"|MlflowClient|Sequence|StrEnum|datetime)",
    ),
    # A type in the text of a parameter that Sphinx takes apart at its brackets.
    ("py:class", r".*\[.*"),
    # Named by docstrings and signatures that other modules' readers need; not public.
    ("py:.*", r"(.*\.shared_probes|\.resolver\.Source|.*\.resolver\.(ready\.Ready|model\.Dates))"),
]
