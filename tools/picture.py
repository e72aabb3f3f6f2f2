#!/usr/bin/env python3
"""Makes the terminal picture of the README from a real session: docs/chat.svg.

    tools/picture.py [--out docs/chat.svg] [--columns 96] [--rows 46]

Types a short chat into `build/pagoda chat` inside tmux, waits for each prompt, reads the screen back with its
colours, and writes it as SVG. Needs tmux, the program (make) and the demo model (make models). Nothing in the picture
is made up or edited: run it again and the same text comes out, since the seed is fixed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from xml.sax.saxutils import escape

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = "build/models/smollm2-135m-instruct-q4_1.gguf"
SYSTEM = "You are a friendly teacher. Answer in two sentences."
COMMAND = f'build/pagoda chat {MODEL} --kv 6M --on-full evict -s 3 -n 80 --system "{SYSTEM}"'
SAID = [
    "My name is Ada and I like astronomy.",
    "/pin",
    "Why is the sky blue?",
    "How do tides work?",
    "/context",
]
LIMIT_S = 300

# The terminal's sixteen colours, background and foreground; the map's own colours come as true colours.
BACKGROUND, FOREGROUND, DIM = "#16181d", "#d8dce4", "#8a919e"
NAMED = {30: "#16181d", 31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 34: "#61afef", 35: "#c678dd", 36: "#56b6c2",
         37: "#d8dce4"}
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 18, 14


class Session:
    """A shell in a tmux of our own."""

    def __init__(self, columns, rows):
        self.folder = tempfile.TemporaryDirectory(prefix="pagoda-picture-")
        self.tmux = ["tmux", "-f", "/dev/null", "-S", os.path.join(self.folder.name, "tmux")]
        variables = {"PS1": "$ ", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "HOME": self.folder.name,
                     "XDG_STATE_HOME": self.folder.name}
        settings = [f"{name}={value}" for name, value in variables.items()]
        self.call("new-session", "-d", "-x", str(columns), "-y", str(rows), "env", *settings, "sh")
        self.call("set-option", "-g", "status", "off")
        self.call("resize-window", "-x", str(columns), "-y", str(rows))

    def call(self, *arguments):
        done = subprocess.run([*self.tmux, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"tmux {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def say(self, line):
        self.call("send-keys", "-l", line)
        self.call("send-keys", "Enter")

    def wait_for_prompt(self, prompt):
        """Waits until the screen has stood still with nothing but a prompt on its last line."""
        end, before = time.monotonic() + LIMIT_S, None
        while time.monotonic() < end:
            time.sleep(0.4)
            screen = self.call("capture-pane", "-p").rstrip()
            if screen == before and screen.split("\n")[-1].rstrip() == prompt:
                return
            before = screen
        sys.exit(f"no prompt after {LIMIT_S} s; the screen:\n{before}")

    def screen(self):
        """The lines on the screen, with escape sequences."""
        lines = self.call("capture-pane", "-e", "-p").split("\n")
        while lines and not lines[-1].strip():
            lines.pop()
        return lines

    def close(self):
        self.call("kill-server")
        self.folder.cleanup()


class Style:
    """How characters look: what the sequences so far add up to."""

    def __init__(self):
        self.color, self.bold, self.dim = None, False, False

    def take(self, parameters):
        numbers = [int(number or 0) for number in parameters.split(";")]
        while numbers:
            number = numbers.pop(0)
            if number == 0:
                self.__init__()
            elif number == 1:
                self.bold = True
            elif number == 2:
                self.dim = True
            elif number == 38 and numbers[:1] == [2]:
                self.color = "#%02x%02x%02x" % tuple(numbers[1:4])
                del numbers[:4]
            elif number in NAMED:
                self.color = NAMED[number]
            elif number == 39:
                self.color = None

    def fill(self):
        return self.color or (DIM if self.dim else FOREGROUND)


def runs_of(line, style):
    """(column, text, fill, bold) of the stretches of a line that look the same; `style` goes on to the next line."""
    column = 0
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        match = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if match:
            style.take(match.group(1))
        elif piece:
            yield column, piece, style.fill(), style.bold
            column += len(piece)


def shape(glyph, left, top, fill):
    """The cells of the page map as shapes, so that every reader sees them, whatever the font; None: it is text."""
    width, height = CELL_WIDTH - 1.4, CELL_HEIGHT - 5
    left, top = left + 0.7, top + 2.5
    box = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height}"'
    outline = f'<rect {box} fill="none" stroke="{fill}"/>'
    return {
        "\u2588": f'<rect {box} fill="{fill}"/>',
        "\u258c": f'<rect x="{left:.1f}" y="{top:.1f}" width="{width / 2:.1f}" height="{height}" fill="{fill}"/>',
        "\u25a1": outline,
        "\u25a3": outline + f'<rect x="{left + 2:.1f}" y="{top + 2:.1f}" width="{width - 4:.1f}" '
                            f'height="{height - 4}" fill="{fill}"/>',
        "\u2592": f'<rect {box} fill="{fill}" opacity="0.5"/>',
    }.get(glyph)


def draw_run(column, top, text, fill, bold):
    """A run of text as SVG elements; words are stretched to the grid of the terminal."""
    for match in re.finditer(r"[\u2588\u258c\u25a1\u25a3\u2592]|[^\s\u2588\u258c\u25a1\u25a3\u2592](?:[^\u2588\u258c"
                             r"\u25a1\u25a3\u2592]*[^\s\u2588\u258c\u25a1\u25a3\u2592])?", text):
        left = MARGIN + (column + match.start()) * CELL_WIDTH
        drawn = shape(match.group(), left, top, fill)
        if drawn is None:
            weight = ' font-weight="bold"' if bold else ""
            drawn = (f'<text x="{left:.1f}" y="{top + CELL_HEIGHT - 5}" fill="{fill}"{weight} xml:space="preserve" '
                     f'textLength="{len(match.group()) * CELL_WIDTH:.1f}">{escape(match.group())}</text>')
        yield drawn


def to_svg(lines, columns):
    width, height = round(2 * MARGIN + columns * CELL_WIDTH), 2 * MARGIN + len(lines) * CELL_HEIGHT
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
           f'DejaVu Sans Mono, monospace" font-size="14">',
           "<title>A chat with pagoda in a terminal, and the map of its pages</title>",
           f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>']
    style = Style()
    for number, line in enumerate(lines):
        for column, text, fill, bold in runs_of(line, style):
            svg.extend(draw_run(column, MARGIN + number * CELL_HEIGHT, text, fill, bold))
    return "\n".join([*svg, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=os.path.join(ROOT, "docs", "chat.svg"))
    parser.add_argument("--columns", type=int, default=96)
    parser.add_argument("--rows", type=int, default=46)
    options = parser.parse_args()
    for path in ("build/pagoda", MODEL):
        if not os.path.exists(os.path.join(ROOT, path)):
            sys.exit(f"{path} is not there: make all models")
    session = Session(options.columns, options.rows)
    try:
        session.wait_for_prompt("$")
        session.say(COMMAND)
        for line in SAID:
            session.wait_for_prompt(">")
            session.say(line)
        session.wait_for_prompt(">")
        lines = session.screen()
    finally:
        session.close()
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(to_svg(lines, options.columns))
    print(f"wrote {options.out}: {len(lines)} lines")


if __name__ == "__main__":
    main()
