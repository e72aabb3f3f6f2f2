"""A memory cgroup of a test's own, of version 1 or 2, and somebody who takes memory in it."""

import os
import subprocess
import sys

from support.suite import Skip

KINDS = {
    1: ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.usage_in_bytes"),
    2: ("/sys/fs/cgroup", "memory.max", "memory.peak", "memory.current"),
}


class Group:
    """Use it in a `with`; needs root. Nobody in it may swap."""

    def __init__(self, limit, versions=(1, 2)):
        self.path = None
        name = f"pagoda-test-{os.getpid()}"
        for version in versions:
            base, self.limit, self.peak, self.usage = KINDS[version]
            path = os.path.join(base, name)
            try:
                os.mkdir(path)
            except OSError:
                continue
            if os.path.exists(os.path.join(path, self.limit)):
                self.path, self.version = path, version
                break
            os.rmdir(path)
        if self.path is None:
            raise Skip(f"needs root and a memory cgroup of version {' or '.join(map(str, versions))}")
        self.set_limit(limit)
        for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            if os.path.exists(os.path.join(self.path, swap)):
                self.write(swap, "0" if swap.endswith("max") else str(limit))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.rmdir(self.path)

    def set_limit(self, limit):
        self.write(self.limit, str(limit))

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.write(text)

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="ascii") as file:
            return file.read().strip()

    def join(self):
        self.write("cgroup.procs", str(os.getpid()))

    def run(self, command, **options):
        return subprocess.run(command, preexec_fn=self.join, capture_output=True, timeout=600, check=False, **options)

    def start(self, command, **options):
        return subprocess.Popen(command, preexec_fn=self.join, **options)

    def kills(self):
        """How often the kernel has killed somebody in here."""
        text = self.read("memory.oom_control" if self.version == 1 else "memory.events")
        return sum(int(line.split()[1]) for line in text.splitlines() if line.split()[0] == "oom_kill")

    def headroom(self):
        """What is left before it hurts: our own reckoning, to hold against pagoda's."""
        fields = dict(line.split() for line in self.read("memory.stat").splitlines())
        names = (("total_inactive_file", "total_active_file", "total_mapped_file", "total_dirty", "total_writeback")
                 if self.version == 1 else
                 ("inactive_file", "active_file", "file_mapped", "file_dirty", "file_writeback"))
        inactive, active, mapped, dirty, writeback = (int(fields.get(name, 0)) for name in names)
        idle = max(0, inactive - dirty - writeback)
        cache = max(0, idle + active - mapped)
        easy = min(cache, idle) + max(0, cache - idle) // 2
        return int(self.read(self.limit)) - max(0, int(self.read(self.usage)) - easy)


HOG = """
import mmap, sys, time
print("ready", flush=True)
rate, size, hold = (float(word) for word in sys.stdin.readline().split())
memory = mmap.mmap(-1, int(size))
step = 1 << 20
start, done = time.monotonic(), 0
while done < int(size) // step:
    memory[done * step:(done + 1) * step] = b"x" * step
    done += 1
    time.sleep(max(0, start + done * step / rate - time.monotonic()))
print("full", flush=True)
time.sleep(hold)
memory.close()
print("gone", flush=True)
"""


class Hog:
    """Takes memory at `rate` bytes a second when told to, holds it, and gives it back."""

    def __init__(self, group):
        self.process = group.start([sys.executable, "-S", "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        assert self.process.stdout.readline() == "ready\n"

    def take(self, rate, size, hold_s):
        self.process.stdin.write(f"{rate} {size} {hold_s}\n")
        self.process.stdin.flush()

    def is_over(self):
        return self.process.poll() is not None

    def end(self):
        self.process.kill()
        self.process.communicate()
