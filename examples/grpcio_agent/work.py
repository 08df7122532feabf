"""An agent over a Work stream, with four tasks at a time: python work.py NAME HOST:PORT

To unary.py it adds that tasks come down a stream and outcomes go up, and that a stream which breaks
is replaced by one that says what is still held. SIGTERM: it takes no more, finishes, and leaves.
"""

import signal
import time
import uuid
from queue import SimpleQueue
from threading import Event, Thread, Timer

import grpc
from handler import KIND
from stubs.taskdist.v1 import taskdist_pb2 as pb
from unary import AWAY, calls, name, run

SLOTS = 4
AWAY_CODES = [code.value[0] for code in AWAY]


class Agent:
    """Takes tasks and reports outcomes over one stream after the other.

    Tasks run in threads of their own, which outlive a stream.
    """

    def __init__(self):
        self.session = uuid.uuid4().hex
        self.held = {}  # by lease: the event that stops its run
        self.unanswered = {}  # by lease: an outcome without a verdict, and the event of its verdict
        self.to_send = SimpleQueue()  # over the stream of now; None ends it
        self.leaving = False

    def work(self):
        while self.held or not self.leaving:
            try:
                self.stream()
            except grpc.RpcError as error:
                if error.code() not in AWAY:
                    raise
            time.sleep(0.5)

    def leave(self):
        self.leaving = True
        self.to_send.put(pb.WorkRequest(goodbye=True))
        self.end_if_finished()

    def stream(self):
        """One stream, from hello to its end."""
        # First the queue, then what is without a verdict: what ends just now is in one of them.
        self.to_send = to_send = SimpleQueue()
        slots = 0 if self.leaving else SLOTS
        hello = pb.WorkHello(agent_id=name, session=self.session, kinds=[KIND], slots=slots)
        hello.lease_ids.extend(list(self.held))
        to_send.put(pb.WorkRequest(hello=hello))
        for outcome, _ in list(self.unanswered.values()):
            self.send(outcome)
        try:
            for news in calls.Work(iter(to_send.get, None)):
                self.hear(news)
        finally:
            to_send.put(None)  # or the thread that sends would wait for ever

    def hear(self, news):
        for task in news.leases:
            self.held[task.lease_id] = Event()
            Thread(target=self.run, args=(task,), daemon=True).start()
        for lease_id in news.revoked_lease_ids:
            if lease_id in self.held:
                self.held[lease_id].set()
        for verdict in news.verdicts:
            if verdict.lease_id in self.unanswered:
                outcome, answered = self.unanswered[verdict.lease_id]
                if verdict.refusal.code in AWAY_CODES:
                    Timer(1, self.send, [outcome]).start()
                else:
                    answered.set()
        if news.drain:  # The distributor is stopping: this stream ends, and work() begins another.
            self.to_send.put(None)

    def run(self, task):
        run(task, self.held[task.lease_id], self.report)
        del self.held[task.lease_id]
        self.end_if_finished()

    def report(self, outcome):
        """Returns once there is a verdict, however many streams that takes."""
        answered = Event()
        self.unanswered[outcome.lease_id] = (outcome, answered)
        self.send(outcome)
        answered.wait()
        del self.unanswered[outcome.lease_id]

    def send(self, outcome):
        self.to_send.put(pb.WorkRequest(outcomes=[outcome]))

    def end_if_finished(self):
        if self.leaving and not self.held:
            self.to_send.put(None)


if __name__ == "__main__":
    agent = Agent()
    signal.signal(signal.SIGTERM, lambda *_: agent.leave())
    agent.work()
