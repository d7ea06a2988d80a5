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


def first_memory() -> Segment | None:
    """Memory for a new channel; None where there is none to be had, and the socket carries everything."""
    try:
        return Segment.make(FIRST_BYTES)
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
            self._refused = self._coming.exception() is not None
            self._coming = None
            if not self._refused:
                self.channel.use()
        if size <= self.channel.room or self._refused or self._coming or size > MOST_BYTES:
            return
        each_way = -(-(size + min(size, SPARE_BYTES)) // ROUND) * ROUND
        try:
            segment = Segment.make(min(each_way, MOST_BYTES))
            told = self.process.hand_memory(segment)
        except (NoSharedMemory, OSError) as error:
            log.debug("no more shared memory: %s", error)
            self._refused = True
            return
        self._coming = self.requests.ask("memory", memory=told)
        self.channel.adopt(segment)
        segment.close_file()
