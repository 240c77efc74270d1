#!/usr/bin/env python3
"""Holds docs/check_links.py against pages with every fault that it must find.

python3 check_links_test.py
"""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs"))
import check_links  # noqa: E402

GOOD = {
    "index.html": '<meta http-equiv="refresh" content="0; url=a/page.html">',
    "a/page.html": '<h1 id="top">x</h1><a href="#top">t</a><a href="other.html#n%C3%A4me">o</a>'
                   '<img src="../picture.svg"><a href="https://example.org/missing">w</a>'
                   '<script src="../code.js?v=1"></script><a href="..">up</a>',
    "a/other.html": '<a name="näme"></a>',
    "picture.svg": "<svg/>",
    "code.js": "",
}
BAD = {
    '<a href="missing.html">x</a>': "there is no such file",
    '<a href="other.html#nowhere">x</a>': "the page has no anchor nowhere",
    '<a href="#nowhere">x</a>': "the page has no anchor nowhere",
    '<img src="missing.svg">': "there is no such file",
    '<script src="missing.js"></script>': "there is no such file",
    '<link href="missing.css" rel="stylesheet">': "there is no such file",
    '<meta http-equiv="refresh" content="0; url=missing.html">': "there is no such file",
    '<a href="../../outside.html">x</a>': "outside the folder",
    '<a href="/a/other.html">x</a>': "not relative",
    '<a href="../picture.svg#part">x</a>': "the page has no anchor part",
}


def messages(files):
    with tempfile.TemporaryDirectory() as parent:
        (pathlib.Path(parent) / "outside.html").write_text("x")
        folder = pathlib.Path(parent) / "html"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return check_links.broken(folder)


def main():
    found, checked = messages(GOOD)
    assert (found, checked) == ([], 6), (found, checked)
    for fault, expected in BAD.items():
        found, checked = messages({**GOOD, "a/page.html": GOOD["a/page.html"] + fault})
        assert len(found) == 1 and found[0].endswith(expected), (fault, found)
        assert checked == 7, checked
    print(f"{len(BAD)} faults found")


if __name__ == "__main__":
    main()
