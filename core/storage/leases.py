"""A lease: the lock of storage that has none. An object in a bucket that says who holds it, renewed while they do.

It is created, renewed and taken over only by its generation, so of many processes one holds it. Its age is measured by
the store's clock alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import UserError
from core.storage import files, generations, locks
from core.storage.locks import EXPIRY, RENEWAL, Holder, LockedError

log = logging.getLogger(__name__)
LOCK, LEASE = "training.lock", "training.lease"
ENDING = 35.0  # seconds in which a process that was asked to stop, or whose run was killed, saves its work and ends


@contextlib.contextmanager
def only_one(root: str, what: str, *, patience: float | None = None) -> Iterator[Callable[[], None]]:
    """Holds the folder or prefix `root` for this process alone.

    Args:
        root: what is held.
        what: it is, for the error.
        patience: seconds to wait for an owner on this machine that may be about to end; left out: `ENDING`.

    Returns:
        A function that raises LockedError if it is held no longer; to be called before anything is written.

    Raises:
        LockedError: another process holds it; says who.
    """
    patience = ENDING if patience is None else patience
    if files.is_remote(root):
        lease = Lease(files.join(root, LEASE), what)
        lease.take(patience)
        with lease.renewed():
            yield lease.require
    else:
        with locks.held(Path(root) / LOCK, what, patience=patience):
            yield lambda: None


class Lease:
    """The lease in the object `uri`.

    Args:
        uri: the object.
        what: is leased, for the error.
        renewal: seconds between two renewals.
        expiry: seconds without one after which it is free.
    """

    def __init__(self, uri: str, what: str, *, renewal: float = RENEWAL, expiry: float = EXPIRY) -> None:
        self.uri, self.what, self.renewal, self.expiry = uri, what, renewal, expiry
        self._generation = generations.ABSENT
        self._renewed = 0.0
        self._one = threading.Lock()
        self._lost: LockedError | None = None

    def take(self, patience: float = 0.0) -> None:
        """Takes it: at once if it is free or its holder is known to be dead, else once it has expired.

        Raises:
            LockedError: its holder renewed it meanwhile.
        """
        began, seen, said = time.monotonic(), "", False
        while True:
            now = generations.look(self.uri)
            owner = _holder(now.data) if now else None
            if now is None or owner is None or now.age >= self.expiry or (owner.near and not owner.alive()):
                generation = generations.replace(self.uri, self._content(), now.generation if now else "0")
                if generation is not None:
                    self._generation, self._renewed = generation, time.monotonic()
                    return
                continue
            seen = seen or now.generation
            waited = time.monotonic() - began
            if waited >= patience if owner.near else now.generation != seen:
                raise self._held_by(owner)
            if not said:
                log.warning("%s: %s holds it; waiting for its end", self.what, owner)
                said = True
            time.sleep(min(1.0, self.renewal / 4))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews it until the block ends, then lets it go."""
        stop = threading.Event()
        thread = threading.Thread(target=self._keep, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            with contextlib.suppress(UserError), self._one:
                if self._lost is None:
                    generations.replace(self.uri, _free(), self._generation)

    def require(self) -> None:
        """Raises LockedError if another process has taken it over."""
        if time.monotonic() - self._renewed >= self.expiry / 2:
            self._renew()
        if self._lost is not None:
            raise self._lost

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self.renewal) and self._lost is None:
            with contextlib.suppress(UserError):  # storage that does not answer now may do so the next time
                self._renew()

    def _renew(self) -> None:
        with self._one:
            generation = generations.replace(self.uri, self._content(), self._generation)
            if generation is not None:
                self._generation, self._renewed = generation, time.monotonic()
                return
            now = generations.look(self.uri)
            self._lost = self._held_by(_holder(now.data) if now else None)

    def _content(self) -> bytes:
        return json.dumps({**Holder.here().facts(), "nonce": uuid.uuid4().hex}).encode()

    def _held_by(self, owner: Holder | None) -> LockedError:
        return LockedError(f"{self.what}: {owner or 'another process'} holds it ({self.uri})")


def _free() -> bytes:
    return json.dumps({"nonce": uuid.uuid4().hex}).encode()


def _holder(data: bytes) -> Holder | None:
    try:
        return Holder.parse(json.loads(data))
    except (ValueError, RecursionError):
        return None
