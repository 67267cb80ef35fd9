"""What the site needs beside its pages: files of the repository that they link to, and pages that `nav` does not name.

Notebooks become pages with their outputs; what is said of links below holds for those to notebooks too.

On GitHub a link such as ``../cluster/local.yaml`` leads to the file. The site has nothing outside ``docs/``, so each of
these files becomes a page of its own, as code.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

NOTEBOOK = re.compile(r"\]\(([\w-]+)\.ipynb\)")
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)\)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json", ".md": "markdown", "": "docker"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages that ``nav`` does not name, so that a new one is never missing."""
    named = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    others = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named)
    if others and config.nav is not None:
        config.nav.append({"More": others})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of each file outside ``docs/`` that a page links to."""
    root = Path(config.docs_dir).parent
    for path in sorted(Path(config.docs_dir).glob("*.ipynb")):
        for file in _notebook_files(path, config):
            files.append(file)
    pages = [file for file in files.documentation_pages() if file.abs_src_path is not None]
    linked = {name for file in pages for name in OUTSIDE.findall(Path(str(file.abs_src_path)).read_text("utf-8"))}
    for name in sorted(linked):
        text = (root / name).read_text("utf-8")
        content = f"# {name}\n\n````{LANGUAGES.get(Path(name).suffix, '')}\n{text}\n````\n"
        files.append(File.generated(config, f"source/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links out of ``docs/``, and to notebooks, to those pages."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    return OUTSIDE.sub(r"](source/\1.md)", NOTEBOOK.sub(r"](\1.md)", markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Show a docstring's reference to another name as code alone."""
    return ROLE.sub("<code>", html)


def _notebook_files(path: Path, config: MkDocsConfig) -> list[File]:
    """Return a page of a notebook's cells and outputs, and its pictures."""
    parts: list[str] = []
    pictures: list[File] = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"images/{path.stem}-{len(pictures)}.png"
                pictures.append(File.generated(config, name, content=base64.b64decode("".join(data["image/png"]))))
                parts.append(f"![]({name})")
            elif "text/html" in data:
                html = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
                parts.append(re.sub(r"\n\s*", "\n", html.strip()))
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    return [File.generated(config, f"{path.stem}.md", content="\n\n".join(parts)), *pictures]
