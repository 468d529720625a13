"""What the documents say of the sources is so: links lead somewhere, names exist, the site builds without a warning."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import pvnas

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "pvnas"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `search/step.py: search_step` in a document is a file of src/pvnas and a name in it.
REFERENCE = re.compile(r"`([\w/]+\.py)(?:: ([\w.]+))?`")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "-q", "-d", str(tmp_path_factory.mktemp("doctrees"))]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.anchors |= {value for name, value in attrs if name in ("id", "name") and value}


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert {path.stem for path in pages} >= {"index", "method", "paper", "data", "running", "api", "contributing"}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            # search.html and genindex.html fill their anchors in when they are opened.
            known = pages[target].anchors if target in pages and target.stem != "search" else None
            if not target.exists() or (known is not None and unquote(parts.fragment) not in known):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_the_site_documents_every_public_name(site: Path) -> None:
    anchors = Page(site / "api.html").anchors
    assert {f"pvnas.{name}" for name in pvnas.__all__ if name != "__version__"} <= anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_between_the_documents_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not urlsplit(link).scheme]
    assert [link for link in links if not (page.parent / unquote(urlsplit(link).path)).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_name_of_the_sources_in_a_document_exists(page: Path) -> None:
    references = REFERENCE.findall(page.read_text(encoding="utf-8"))
    if page.name == "paper.md":
        assert len([name for _, name in references if name]) > 10
    assert [f"{file}: {name}" for file, name in references if not _exists(file, name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_merge_is_left_half_done(page: Path) -> None:
    assert re.findall(r"^(?:<{7}|>{7}) .*", page.read_text(encoding="utf-8"), re.MULTILINE) == []


def _exists(file: str, name: str) -> bool:
    """Whether a file of the package or the repository is there and defines a name such as ``SearchCell.forward``."""
    folders = [SOURCES, ROOT, *(ROOT / folder for folder in ("tests", "benchmarks", "examples"))]
    path = next((folder / file for folder in folders if (folder / file).exists()), None)
    if path is None:
        return not name and any((ROOT / "tests").rglob(file))
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split(".") if name else []:
        owner = next((statement for statement in body if part in _defined(statement)), None)
        if owner is None:
            return False
        body = getattr(owner, "body", [])
    return True


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}
