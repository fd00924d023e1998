"""The pages in two languages are held together, and what they name and link to is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH = ["README.md", "docs/article.md"]
CHINESE = {page: page.replace(".md", ".zh-CN.md") for page in ENGLISH}
PAGES = [*ENGLISH, *CHINESE.values(), "CONTRIBUTING.md"]


def read(page):
    return (ROOT / page).read_text("utf-8")


def code_blocks(text):
    return re.findall(r"^ *```.*?^ *```$", text, re.DOTALL | re.MULTILINE)


def links(page):
    """All link targets of a page, in order; of the link to its other language only that there is one."""
    other_language = {Path(name).name for pair in CHINESE.items() if page in pair for name in pair}
    found = re.findall(r"!?\[[^\]]*\]\(([^)]+)\)", read(page))
    return ["other language" if link in other_language else link for link in found]


def prose(page):
    return re.sub(r"^ *```.*?^ *```$|\]\([^)]*\)", " ", read(page), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ENGLISH)
def test_both_languages_have_the_same_code_and_links(page):
    english, chinese = read(page), read(CHINESE[page])
    assert len(code_blocks(english)) >= 5
    assert code_blocks(english) == code_blocks(chinese)
    assert sorted(links(page)) == sorted(link.replace(".zh-CN.md", ".md") for link in links(CHINESE[page]))
    headings = [re.findall(r"^#+ ", text, re.MULTILINE) for text in (english, chinese)]
    assert headings[0] == headings[1]


def names_in(path):
    """Every function and class that a file defines, and every method, as Class.method."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    for link in links(page):
        if link != "other language" and not link.startswith(("http", "#")):
            path, _, heading = link.partition("#")
            assert (folder / path).exists(), link
            if heading:
                headings = re.findall(r"^#+ (.+)$", (folder / path).read_text("utf-8"), re.MULTILINE)
                assert heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, link


@pytest.mark.parametrize("page", ["docs/article.md", "docs/article.zh-CN.md"])
def test_what_the_article_names_is_defined_there(page):
    named = re.findall(r"\[`([\w.]+)`\]\((\.\./[\w/]+\.py)\)", read(page))
    assert len(named) > 20
    for name, path in named:
        assert name in names_in(ROOT / "docs" / path), f"{path} does not define {name}"


@pytest.mark.parametrize("page", ["docs/article.md", "docs/article.zh-CN.md"])
def test_the_article_names_every_one_of_its_tests(page):
    named = set(re.findall(r"`(test_\w+)`", read(page)))
    defined = names_in(Path(__file__).with_name("test_article.py"))
    assert named - {"test_"} == {name for name in defined if name.startswith("test_")}


@pytest.mark.parametrize(("page", "most"), [("README.md", 1500), ("docs/article.md", 1800)])
def test_pages_can_be_read_in_one_sitting(page, most):
    words = read(page).split() if page == "README.md" else prose(page).split()
    assert len(words) <= most
