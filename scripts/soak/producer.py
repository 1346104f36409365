"""A Kafka producer that cannot get lost: a new connection for each request. librdkafka, which silverd uses, is not involved."""

import struct
import threading
import time


class Producer(threading.Thread):
    """Sends one event to each partition of a topic, `rate` times a second. What it cannot send, it leaves out."""

    def __init__(self, broker, topic, partitions, rate, events):
        super().__init__(daemon=True)
        self.broker, self.topic, self.partitions, self.events = broker, topic.encode(), partitions, events
        self.interval, self.stopping = 1 / rate, threading.Event()
        # Events that the broker has confirmed, and those that it may have: their request had an error or no answer.
        self.confirmed, self.uncertain = 0, 0

    def run(self):
        while not self.stopping.is_set():
            began = time.monotonic()
            self.send([next(self.events) for _ in range(self.partitions)])
            self.stopping.wait(max(0.0, self.interval - (time.monotonic() - began)))

    def stop(self):
        self.stopping.set()
        self.join()

    def send(self, values):
        # Produce, version 3: https://kafka.apache.org/protocol#The_Messages_Produce
        body = struct.pack(f">hhiih{len(self.topic)}si", -1, -1, 5000, 1, len(self.topic), self.topic, len(values))
        for partition, value in enumerate(values):
            batch = record_batch(value)
            body += struct.pack(">ii", partition, len(batch)) + batch
        try:
            answer = self.broker.request(0, 3, body, seconds=5)
            entries = struct.iter_unpack(">ihqq", answer[4 + 2 + len(self.topic) + 4 : -4])
            confirmed = sum(error == 0 for _, error, _, _ in entries)
            self.confirmed += confirmed
            self.uncertain += len(values) - confirmed
        except ConnectionRefusedError:
            pass
        except (OSError, struct.error):
            self.uncertain += len(values)


def record_batch(value):
    """A record batch with one record: https://kafka.apache.org/documentation/#recordbatch"""
    now = int(time.time() * 1000)
    record = bytes(3) + b"\x01" + varint(len(value)) + value + b"\x00"
    record = varint(len(record)) + record
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(checked), -1, 2, crc32c(checked)) + checked


def varint(number):
    """A number that is not negative, in the zigzag encoding."""
    number, encoded = number << 1, bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def crc_entry(byte):
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 * (byte & 1)
    return byte


CRC_TABLE = [crc_entry(byte) for byte in range(256)]
