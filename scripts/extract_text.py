#!/usr/bin/env python3
"""Turns an unpacked Debian package into one plain text on standard output.

    scripts/extract_text.py debian-handbook|bible-kjv|newton-opticks DIRECTORY

The result depends on the package's files alone, so everyone with the same package gets the same bytes.
"""

import html.parser
import os
import re
import struct
import subprocess
import sys


class PageText(html.parser.HTMLParser):
    """The prose of one page: block elements end paragraphs, navigation and tables of contents are left out."""

    BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "dt", "dd", "pre", "tr", "table", "br", "title"}
    VOID = {"img", "br", "hr", "meta", "link", "input", "col"}
    LEFT_OUT_CLASSES = {"docnav", "toc", "index", "indexterm", "mediaobject", "footnotes"}
    LEFT_OUT_TAGS = {"head", "script", "style"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs = []
        self.text = []
        self.open_tags = []
        self.left_out_depth = 0
        self.pre_depth = 0
        self.next_page = None

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") == "next":
            self.next_page = attributes.get("href")
        if tag in self.BLOCKS:
            self.end_paragraph()
        if tag in self.VOID:
            return
        classes = set((attributes.get("class") or "").split())
        left_out = (tag in self.LEFT_OUT_TAGS or classes & self.LEFT_OUT_CLASSES
                    or attributes.get("id") in ("banner", "title"))
        self.open_tags.append((tag, bool(left_out)))
        self.left_out_depth += bool(left_out)
        self.pre_depth += tag == "pre"

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in self.BLOCKS:
            self.end_paragraph()
        while self.open_tags:
            opened, left_out = self.open_tags.pop()
            self.left_out_depth -= left_out
            self.pre_depth -= opened == "pre"
            if opened == tag:
                break

    def handle_data(self, data):
        if self.left_out_depth == 0:
            self.text.append(data)

    def end_paragraph(self):
        text = "".join(self.text)
        self.text = []
        if self.pre_depth:
            text = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
        else:
            text = " ".join(text.split())
        if text.strip():
            self.paragraphs.append(text)


def debian_handbook(directory):
    """The English pages in reading order: each names the next one."""
    pages = os.path.join(directory, "usr/share/doc/debian-handbook/html/en-US")
    name, seen, paragraphs = "index.html", set(), []
    while name and name not in seen:
        seen.add(name)
        page = PageText()
        with open(os.path.join(pages, name), encoding="utf-8") as file:
            page.feed(file.read())
        page.end_paragraph()
        paragraphs += page.paragraphs
        name = os.path.basename(page.next_page) if page.next_page else None
    return "\n\n".join(paragraphs).replace("\u00a0", " ") + "\n"


def bible_kjv(directory):
    """bible.data is a header, a table of offsets, and blocks packed by compress(1), which gzip reads."""
    with open(os.path.join(directory, "usr/lib/bible.data"), "rb") as file:
        data = file.read()
    starts = [match.start() for match in re.finditer(b"\x1f\x9d\x90", data)]
    first = starts[0]
    # Only offsets that the table lists begin a block; the magic bytes may also occur inside one.
    table = {value for (value,) in struct.iter_unpack(">I", data[:first - first % 4])}
    starts = [start for start in starts if start == first or start in table or start - first in table]
    ends = starts[1:] + [len(data)]
    text = b""
    for start, end in zip(starts, ends):
        text += subprocess.run(["gzip", "-dc"], input=data[start:end], stdout=subprocess.PIPE, check=True).stdout
    return text.decode("ascii")


def newton_opticks(directory):
    for folder, _, names in sorted(os.walk(directory)):
        if "Isaac.Newton-Opticks.txt" in names:
            with open(os.path.join(folder, "Isaac.Newton-Opticks.txt"), encoding="utf-8", errors="replace") as file:
                return file.read().replace("\r\n", "\n")
    raise FileNotFoundError("Isaac.Newton-Opticks.txt")


def main():
    extractors = {"debian-handbook": debian_handbook, "bible-kjv": bible_kjv, "newton-opticks": newton_opticks}
    if len(sys.argv) != 3 or sys.argv[1] not in extractors:
        print(f"usage: extract_text.py {'|'.join(extractors)} DIRECTORY", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.write(extractors[sys.argv[1]](sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
