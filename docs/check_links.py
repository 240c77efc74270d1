#!/usr/bin/env python3
"""Checks every link, picture, script and anchor of a folder of HTML pages.

python3 docs/check_links.py FOLDER

What points into the folder must be there, with the anchor that it names. What points to the web
is not followed. An error for each that is broken, and for a
folder without links.
"""
import html.parser
import pathlib
import sys
import urllib.parse

TARGETS = {"a": "href", "area": "href", "link": "href", "img": "src", "script": "src",
           "source": "src", "iframe": "src", "embed": "src", "object": "data"}


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.update(given[key] for key in ("id", "name") if given.get(key))
        if tag in TARGETS and given.get(TARGETS[tag]) is not None:
            self.targets.append((self.getpos()[0], given[TARGETS[tag]]))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.targets.append((self.getpos()[0], given["content"].partition("url=")[2]))


def broken(folder):
    """(messages, number of links checked) for all pages below a folder."""
    folder = folder.resolve()
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    messages, checked = [], 0
    for path, page in pages.items():
        for line, target in page.targets:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc:
                continue
            checked += 1
            where = f"{path.relative_to(folder)}:{line}: {target}"
            file = path
            if url.path.startswith("/"):
                messages.append(f"{where}: not relative")
                continue
            if url.path:
                file = (path.parent / urllib.parse.unquote(url.path)).resolve()
                if file.is_dir():
                    file /= "index.html"
            anchor = urllib.parse.unquote(url.fragment)
            if not file.is_file():
                messages.append(f"{where}: there is no such file")
            elif folder not in file.parents:
                messages.append(f"{where}: outside the folder")
            elif anchor and (file not in pages or anchor not in pages[file].anchors):
                messages.append(f"{where}: the page has no anchor {anchor}")
    return messages, checked


def main():
    folder = pathlib.Path(sys.argv[1])
    messages, checked = broken(folder)
    for message in messages:
        print(message, file=sys.stderr)
    if checked == 0:
        sys.exit(f"{folder}: no page has a link")
    if messages:
        sys.exit(f"{len(messages)} of {checked} links are broken")
    print(f"{checked} links lead somewhere")


if __name__ == "__main__":
    main()
