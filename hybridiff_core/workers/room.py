"""The shared memory of one worker's channel: made when it is connected, and larger where a message needs it."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from .channel import Channel
from .launch_local import WorkerProcess
from .requests import Requests
from .shared import FIRST_BYTES, MOST_BYTES, NoSharedMemory, Segment

log = logging.getLogger("hybridiff")

SPARE_BYTES = 32 << 20  # up to this size, two messages have room at once
ROUND = 1 << 20
LINK_BYTES = 32 << 20  # each way between two workers, for what lies between two blocks; that does not grow


def first_memory(each_way: int = FIRST_BYTES) -> Segment | None:
    """Memory for a new channel; None where there is none to be had, and the socket carries everything."""
    try:
        return Segment.make(each_way)
    except NoSharedMemory as error:
        log.debug("no shared memory: %s", error)
        return None


class Room:
    """Keeps a channel's memory as large as its messages need. Nobody waits: what has no room goes by the socket."""

    def __init__(self, channel: Channel, requests: Requests, process: WorkerProcess):
        self.channel, self.requests, self.process = channel, requests, process
        self._coming: Future | None = None
        self._refused = not channel.room

    def see_to(self, size: int) -> None:
        """A message of `size` bytes will go or come. Raises WorkerLost."""
        if self._coming and self._coming.done():
            self._refused = bool(self._coming.exception()) or not self._coming.result().get("shared")
            self._coming = None
            if not self._refused:
                self.channel.use()
        if size <= self.channel.room or self._refused or self._coming or size > MOST_BYTES:
            return
        each_way = -(-(size + min(size, SPARE_BYTES)) // ROUND) * ROUND
        segment = None
        try:
            segment = Segment.make(min(each_way, MOST_BYTES))
            self._coming = self.requests.ask("memory", memory=self.process.hand_memory(segment))
            self.channel.adopt(segment)
        except (NoSharedMemory, OSError) as error:
            log.debug("no more shared memory: %s", error)
            self._refused = True
        finally:
            if segment:
                segment.close_file()
