# SPDX-License-Identifier: Apache-2.0
"""Disks on which the operation of a given number fails, or is the last one before the power goes."""

import errno
import os
import signal

from edgelearn.durable import Disk


class PowerCut(BaseException):
    """Nothing after it happens, no handler of OSError sees it."""


class Cutting(Disk):
    """Notes operations in `done`; operation `at` strikes, a write when half of it is written."""

    def __init__(self, at=None):
        self.at, self.done, self.fired = at, [], False

    def strike(self):
        raise AssertionError("this disk only notes: take one that fails or cuts")

    def step(self, name):
        self.done.append(name)
        if len(self.done) - 1 == self.at:
            self.fired = True
            self.strike()

    def create(self, path):
        self.step("create")
        return super().create(path)

    def extend(self, path):
        self.step("extend")
        return super().extend(path)

    def truncate(self, path, size):
        self.step("truncate")
        super().truncate(path, size)

    def write(self, stream, part):
        if len(self.done) == self.at:
            super().write(stream, memoryview(part)[: len(part) // 2])
        self.step("write")
        super().write(stream, part)

    def sync(self, stream):
        self.step("sync")
        super().sync(stream)

    def rename(self, old, new):
        self.step("rename")
        super().rename(old, new)

    def remove(self, path):
        self.step("remove")
        super().remove(path)

    def make_folder(self, path):
        self.step("make_folder")
        super().make_folder(path)

    def sync_folder(self, path):
        self.step("sync_folder")
        super().sync_folder(path)


class Failing(Cutting):
    """One operation is refused; the process lives on."""

    def __init__(self, at=None, code=errno.EIO):
        super().__init__(at)
        self.code = code

    def strike(self):
        raise OSError(self.code, os.strerror(self.code))


class Refusing(Cutting):
    """A file system that was mounted again as read-only, for a user whom permissions do not stop."""

    def step(self, name):
        self.done.append(name)
        if name not in ("sync", "sync_folder"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class Killing(Cutting):
    """The process dies of a real SIGKILL."""

    def strike(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Losing(Cutting):
    """The power goes, and with it all that was not synced: contents, and with `names` renames and deletions too."""

    def __init__(self, at=None, names=True):
        super().__init__(at)
        self.names, self.dead = names, False
        self.unsynced, self.undo, self.safe = {}, [], {}

    def step(self, name):
        if self.dead:
            raise PowerCut
        super().step(name)

    def strike(self):
        self.dead = True
        for _, restore in reversed(self.undo if self.names else []):
            restore()
        for inode, path in self.unsynced.items():
            if path.exists():
                safe = self.safe.get(inode, 0)
                os.truncate(path, safe + (path.stat().st_size - safe) // 2)
        raise PowerCut

    def create(self, path):
        stream = super().create(path)
        self.unsynced[os.fstat(stream.fileno()).st_ino] = path
        return stream

    def extend(self, path):
        stream = super().extend(path)
        about = os.fstat(stream.fileno())
        if about.st_ino not in self.unsynced:
            self.unsynced[about.st_ino], self.safe[about.st_ino] = path, about.st_size
        return stream

    def truncate(self, path, size):
        super().truncate(path, size)
        about = path.stat()
        self.safe[about.st_ino] = min(size, self.safe.get(about.st_ino, size))

    def sync(self, stream):
        super().sync(stream)
        about = os.fstat(stream.fileno())
        del self.unsynced[about.st_ino]
        self.safe[about.st_ino] = about.st_size

    def rename(self, old, new):
        before, inode = new.read_bytes() if new.exists() else None, old.stat().st_ino
        super().rename(old, new)
        if inode in self.unsynced:
            self.unsynced[inode] = new

        def restore():
            os.replace(new, old)
            if before is not None:
                new.write_bytes(before)

        self.undo.append((new.parent, restore))

    def remove(self, path):
        before = path.read_bytes()
        super().remove(path)
        self.undo.append((path.parent, lambda: path.write_bytes(before)))

    def make_folder(self, path):
        super().make_folder(path)
        self.undo.append((path.parent, path.rmdir))

    def sync_folder(self, path):
        super().sync_folder(path)
        self.undo = [(folder, restore) for folder, restore in self.undo if folder != path]
