"""What the soaks share: a Kafka broker, and a reader of Delta logs that knows nothing of silverd but its files."""

import itertools
import json
import os
import socket
import struct
import subprocess
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Failure(Exception):
    """What makes the rest of a run useless."""


class Broker:
    """One Kafka, by scripts/kafka."""

    def __init__(self, folder):
        self.folder, self.port = folder, 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def script(self, *arguments):
        environment = {"KAFKA_HEAP_OPTS": "-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1", **os.environ}
        command = [ROOT / "scripts/kafka", arguments[0], self.folder, *arguments[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise Failure(f"scripts/kafka {arguments[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self):
        self.port = int(self.script("start", str(self.port)).rsplit(":", 1)[1])

    def stop(self):
        self.script("stop")

    def signal(self, number):
        os.kill(int((self.folder / "kafka.pid").read_text()), number)

    def is_started(self):
        return (self.folder / "kafka.pid").exists()

    def request(self, key, version, body, seconds=2):
        """The body of the response to a request on a connection of its own."""
        request = struct.pack(">hhih", key, version, 1, -1) + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                return stream.read(size)[4:]

    def ends(self, name, partitions):
        """The end offset of each partition of a topic; None while the broker does not give all of them."""
        # ListOffsets, version 1, of the newest offsets: https://kafka.apache.org/protocol#The_Messages_ListOffsets
        topic = name.encode()
        body = struct.pack(f">iih{len(topic)}si", -1, 1, len(topic), topic, partitions)
        body += b"".join(struct.pack(">iq", partition, -1) for partition in range(partitions))
        try:
            entries = list(struct.iter_unpack(">ihqq", self.request(2, 1, body)[4 + 2 + len(topic) + 4 :]))
        except (OSError, struct.error):
            return None
        ends = {partition: end for partition, error, _, end in entries if error == 0 and end >= 0}
        return ends if len(ends) == partitions else None


class TableLog:
    """The commits of a Delta table, each read once."""

    def __init__(self, table):
        self.log, self.version = table / "_delta_log", 0
        # The next offset of each partition, and the events that a Silver table has processed.
        self.next, self.events = {}, 0

    def read(self):
        while (entry := self.log / f"{self.version:020}.json").exists():
            for line in entry.read_text().splitlines():
                action = json.loads(line)
                if (progress := action.get("txn")) and progress["appId"].startswith("silverd:"):
                    self.next[int(progress["appId"].rsplit(":", 1)[1])] = progress["version"]
                self.events += action.get("commitInfo", {}).get("silverd", {}).get("counts", {}).get("events", 0)
            self.version += 1
        return self


def output_of(*command):
    """What a command prints. It must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command[:3]))} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def shop_events():
    """The events of the tests' fixture without end, each with an id of its own."""
    lines = (ROOT / "daemon/tests/it/fixtures/shop-events.jsonl").read_text().splitlines()
    for event in itertools.cycle([json.loads(line) for line in lines]):
        yield {**event, "event_id": str(uuid.uuid4())}
