"""The messenger: carries commands to the daemon and brings the answers back, so that the window never waits. Also finds
out why nothing comes from a daemon.

Owns: the `Controller`. Thread: `commands` runs the loop; the view's main thread calls `put` and `take`. Never: repeats
a command, or keeps more than `MAX_WAITING`: further ones are answered at once, with the reason.
"""

from __future__ import annotations

import queue
import threading

import zmq

from stream.client import ClientKeys
from stream.command import Add, ObjectRequest, Refine, Remove, Rename, Reply, Reset, Undo
from stream.controller import CommandRefused, Controller
from stream.knock import why_silent
from stream.view.asking import Ask, Outcome

MAX_WAITING = 32
TICK_S = 0.25
REPLY_LIMIT_S = 5.0


class Messenger:
    """`ready` is set when the loop turns. `commands` writes `num_loops`, `error`, `why_silent` and the controller."""

    def __init__(self, keys: ClientKeys | None = None) -> None:
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.num_loops = 0
        self.why_silent = ""  # what `look` found
        self._keys = keys
        self._stopping = threading.Event()
        self._asks: queue.Queue[tuple[str, Ask | None]] = queue.Queue(MAX_WAITING)
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._controller: Controller | None = None
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What was not sent yet is not sent any more."""
        self._stopping.set()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    def put(self, endpoint: str, ask: Ask) -> None:
        """Send a command to this control endpoint, after those before it. Never blocks."""
        if self.error is not None:
            self._outcomes.put(Outcome(ask.token, None, f"the thread that sends commands has failed: {self.error}"))
            return
        try:
            self._asks.put_nowait((endpoint, ask))
        except queue.Full:
            self._outcomes.put(Outcome(ask.token, None, f"{MAX_WAITING} commands are waiting already"))

    def look(self, endpoint: str) -> None:
        """Find out, when there is nothing else to do, why nothing comes from this publishing endpoint."""
        if self._asks.empty():
            self._asks.put_nowait((endpoint, None))

    def take(self) -> list[Outcome]:
        """What became of commands since last time. Never blocks."""
        outcomes = []
        while not self._outcomes.empty():
            outcomes.append(self._outcomes.get_nowait())
        return outcomes

    def _run(self) -> None:
        try:
            self.ready.set()
            while not self._stopping.is_set():
                self.num_loops += 1
                self._serve()
        except Exception as error:
            self.error = error
        finally:
            if self._controller is not None:
                self._controller.close()

    def _serve(self) -> None:
        try:
            endpoint, ask = self._asks.get(timeout=TICK_S)
        except queue.Empty:
            return
        if ask is None:
            self.why_silent = why_silent(endpoint, keys=self._keys, socket_type=zmq.SUB)
            return
        reply: Reply | None = None
        problem = ""
        try:
            reply = obey(self._controller_of(endpoint), ask.request)
        except CommandRefused as refused:
            reply = refused.reply
        except (TimeoutError, ValueError) as error:
            problem = str(error)
        self._outcomes.put(Outcome(ask.token, reply, problem))

    def _controller_of(self, endpoint: str) -> Controller:
        """One that is connected there: a daemon that was started anew may listen elsewhere."""
        if self._controller is None or self._controller.endpoint != endpoint:
            if self._controller is not None:
                self._controller.close()
            self._controller = None
            self._controller = Controller(endpoint, keys=self._keys, timeout_s=REPLY_LIMIT_S)
        return self._controller


def obey(controller: Controller, request: ObjectRequest) -> Reply:
    """Send it, with an id of the controller's own, and wait."""
    match request:
        case Add(camera=camera, points=points, box=box, seen=seen, object_id=object_id, label=label):
            return controller.add(camera, points=points, box=box, seen=seen, object_id=object_id, label=label)
        case Refine(camera=camera, points=points, box=box, seen=seen, object_id=object_id):
            return controller.refine(camera, object_id, points=points, box=box, seen=seen)
        case Remove(camera=camera, object_id=object_id):
            return controller.remove(camera, object_id)
        case Rename(camera=camera, object_id=object_id, new_id=new_id, label=label):
            return controller.rename(camera, object_id, new_id=new_id, label=label)
        case Reset(camera=camera):
            return controller.reset(camera)
        case Undo(camera=camera):
            return controller.undo(camera)
