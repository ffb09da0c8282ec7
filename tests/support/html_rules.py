"""HTML, read, and the rules that every page of ours keeps."""

import html.parser
import re

EMPTY = {"meta", "link", "path", "use", "img", "br"}


class Reader(html.parser.HTMLParser):
    """Elements in their order, as (tag, attributes); the text of each; what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_keeps_the_rules(text):
    """What every page of ours must hold; returns its Reader."""
    reader = Reader(text)
    assert not reader.open, "every element is closed"
    assert reader.of("html") == [{"lang": "en"}]
    tags = [tag for tag, _ in reader.elements]
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(tags)
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names)), "every id once"
    for tag, attributes in reader.elements:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 20
        if tag == "img":
            assert len(attributes["alt"]) > 20
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in names
    assert tags.count("table") == tags.count("caption")
    policy = [each for each in reader.of("meta") if "http-equiv" in each]
    assert policy[0]["content"].startswith("default-src 'none';")
    assert "width=device-width" in str(reader.of("meta"))
    assert not re.search(r"url\((?!#)|@import|https?:|//", "".join(reader.text["style"]))
    return reader
