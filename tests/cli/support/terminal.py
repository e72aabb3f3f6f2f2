"""The program on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from support.suite import LIMIT_S, PROGRAM, environment

RAW_LIMIT_S = 0.5
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>78][AB0]?|\r")


class Terminal:
    """Runs the program with a pseudo-terminal as all three streams (or those that are not replaced)."""

    def __init__(self, *arguments, env=None, columns=100, rows=30):
        self.data = b""
        self.seen = 0 # how much of the text earlier waits have used up
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(PROGRAM, [PROGRAM, *map(str, arguments)], env or environment())
        self.resize(columns, rows)

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def text(self):
        """Everything so far, without escape sequences."""
        return ESCAPES.sub("", self.data.decode("utf-8", "replace"))

    def _read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError: # the other end is closed
            return False
        self.data += data
        return bool(data)

    def wait_for(self, pattern, limit=LIMIT_S):
        """Waits until text that was not waited for before matches; returns the match."""
        end = time.monotonic() + limit
        goes_on = True
        while True:
            text = self.text()
            match = re.compile(pattern, re.S).search(text, self.seen)
            if match:
                self.seen = match.end()
                return match
            assert goes_on and time.monotonic() < end, f"no {pattern!r} after {text[self.seen:]!r}"
            goes_on = self._read(0.1)

    def watch(self, seconds):
        """What comes within some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._read(0.05):
            pass
        text = self.text()
        new, self.seen = text[self.seen:], len(text)
        return new

    def send(self, text):
        os.write(self.fd, text.encode())

    def line(self, text):
        self.send(text + "\r")

    def prompt(self):
        """Waits for the prompt, and until the program reads key by key: what is typed between the two would be echoed
        twice. One that reads whole lines never does."""
        match = self.wait_for(r"(?:^|\n)> (?!.*\n)")
        end = time.monotonic() + RAW_LIMIT_S
        while termios.tcgetattr(self.fd)[3] & termios.ICANON and time.monotonic() < end:
            time.sleep(0.002)
        return match

    def exit_code(self, limit=LIMIT_S):
        """Waits for the end."""
        end = time.monotonic() + limit
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._drain()
                assert os.WIFEXITED(status), f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
                return os.WEXITSTATUS(status)
            self._read(0.05)
            assert time.monotonic() < end, f"does not end after {self.text()[-300:]!r}"

    def _drain(self):
        while self._read(0) and select.select([self.fd], [], [], 0)[0]:
            pass

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()
