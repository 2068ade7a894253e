"""Tests unmodified kafka-python against a broker: kafka_python.py BOOTSTRAP SCENARIO.

Each scenario checks its results; the first difference ends the program with a traceback and a non-zero status.
"""

import collections
import faulthandler
import logging
import sys
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import TopicAlreadyExistsError

# Longest duration of a single step on a busy machine.
LIMIT_S = 60

AWKWARD = [
    (b"key", b"value", []),
    (None, b"no key", []),
    (b"tombstone", None, []),
    (b"", b"", []),
    (bytes([0, 255, 0, 128]), bytes(range(256)) * 1000, []),
    (b"k", b"headers", [("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"")]),
]


class LastWords(logging.Handler):
    """The last things that the client logged, to be printed only if a step does not end."""

    def __init__(self):
        super().__init__()
        self.records = collections.deque(maxlen=2000)
        logger = logging.getLogger("kafka")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self)
        # The bytes of every request.
        for part in ("kafka.protocol", "kafka.net.transport", "kafka.net.selector"):
            logging.getLogger(part).setLevel(logging.INFO)

    def emit(self, record):
        # Formatted now, since the arguments change afterwards.
        self.records.append(f"{record.created:.3f} {record.threadName} {record.name} {record.getMessage()[:400]}")

    def print(self):
        print("\n".join(self.records), file=sys.stderr)
        faulthandler.dump_traceback()


LAST_WORDS = LastWords()


def check_time(deadline, what):
    if time.monotonic() >= deadline:
        LAST_WORDS.print()
        raise AssertionError(f"not in time: {what}")


def eventually(what, ask):
    deadline = time.monotonic() + LIMIT_S
    while not ask():
        check_time(deadline, what)
        time.sleep(0.02)


def create_topic(bootstrap, name, partitions=1):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()


def produce(bootstrap, topic, records, partitions=1, **settings):
    producer = KafkaProducer(bootstrap_servers=bootstrap, **settings)
    sent = [
        producer.send(topic, value=value, key=key, headers=headers, partition=number % partitions)
        for number, (key, value, headers) in enumerate(records)
    ]
    producer.flush(LIMIT_S)
    for future in sent:
        future.get(LIMIT_S)
    producer.close()


def read(bootstrap, topic, count):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", check_crcs=True)
    consumer.assign([TopicPartition(topic, 0)])
    records = []
    deadline = time.monotonic() + LIMIT_S
    while len(records) < count:
        check_time(deadline, f"{len(records)} of {count} records of {topic}")
        for batch in consumer.poll(1000).values():
            records += batch
    consumer.close()
    return records


def same(topic, sent, records):
    for offset, ((key, value, headers), record) in enumerate(zip(sent, records, strict=True)):
        assert record.offset == offset, (topic, record.offset, offset)
        assert record.key == key, (topic, offset, record.key)
        assert record.value == value, (topic, offset, record.value)
        assert list(record.headers) == headers, (topic, offset, record.headers)


def roundtrip(bootstrap):
    variants = [
        ("idempotent", {"enable_idempotence": True}),
        ("acks-all", {"acks": "all", "enable_idempotence": False}),
        ("acks-1", {"acks": 1, "enable_idempotence": False}),
        ("acks-0", {"acks": 0, "enable_idempotence": False}),
    ]
    for name, settings in variants:
        create_topic(bootstrap, name)
        produce(bootstrap, name, AWKWARD, **settings)
        same(name, AWKWARD, read(bootstrap, name, len(AWKWARD)))


def codecs(bootstrap):
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        topic = f"codec-{codec}"
        create_topic(bootstrap, topic)
        sent = AWKWARD + [(b"key-%d" % (i % 10), b"value %d %s" % (i, b"x" * 100), []) for i in range(2000)]
        produce(bootstrap, topic, sent, compression_type=codec, linger_ms=20)
        same(topic, sent, read(bootstrap, topic, len(sent)))


class Member(threading.Thread):
    """A member of a group, polling in its own thread, that counts the values it read."""

    def __init__(self, bootstrap, group, assignor):
        super().__init__(daemon=True)
        self.consumer = KafkaConsumer(
            group, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            partition_assignment_strategy=[assignor], session_timeout_ms=6000, heartbeat_interval_ms=200)
        self.values = set()
        self.positions = []
        self.leaving = False
        self.failure = None
        self.start()

    def run(self):
        try:
            while not self.leaving:
                for batch in self.consumer.poll(100).values():
                    self.values.update(record.value for record in batch)
                self.positions = [self.consumer.position(partition) for partition in self.consumer.assignment()]
            self.consumer.commit()
            self.consumer.close()
        except Exception as failure:
            self.failure = failure
            LAST_WORDS.print()
            raise

    def leave(self):
        self.leaving = True
        self.join(LIMIT_S)
        assert not self.is_alive() and self.failure is None, self.failure


def group(bootstrap):
    count = 600
    for name, assignor in [("group-range", RangePartitionAssignor), ("group-cooperative", CooperativeStickyAssignor)]:
        create_topic(bootstrap, name, 6)

        def send(first, name=name):
            produce(bootstrap, name, [(None, b"%d" % i, []) for i in range(first, first + count)], partitions=6)

        send(0)
        first = Member(bootstrap, name, assignor)
        eventually("the first member reads everything", lambda first=first: len(first.values) == count)
        second = Member(bootstrap, name, assignor)
        eventually("three partitions each", lambda a=first, b=second: [len(a.positions), len(b.positions)] == [3, 3])
        send(count)
        eventually("both read on", lambda a=first, b=second: len(a.values | b.values) == 2 * count)
        first.leave()
        send(2 * count)
        eventually("the one that stays reads everything",
                   lambda second=second: second.positions == [3 * count // 6] * 6)
        second.leave()

        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        committed = admin.list_group_offsets({name: None})[name]
        assert {place.partition: at.offset for place, at in committed.items()} == {p: 3 * count // 6 for p in range(6)}, committed
        admin.close()


def admin(bootstrap):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    assert len(client.describe_cluster()["brokers"]) == 1
    topic = {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}
    client.create_topics({"admin": topic}, wait_for_metadata=True)
    try:
        client.create_topics({"admin": topic})
        raise AssertionError("a topic is created once")
    except TopicAlreadyExistsError:
        pass
    client.create_partitions({"admin": 3})
    eventually("three partitions", lambda: len(client.describe_topics(["admin"])[0]["partitions"]) == 3)

    def settings():
        described = client.describe_configs([ConfigResource("topic", "admin", configs=None)], config_filter="all")
        return {name: entry["value"] for name, entry in described["topic"]["admin"].items()}

    assert settings()["retention.ms"] == "3600000"
    client.alter_configs([ConfigResource("topic", "admin", configs={"retention.bytes": "1000000"})])
    assert settings()["retention.bytes"] == "1000000"
    client.reset_configs([ConfigResource("topic", "admin", configs={"retention.ms": None})])
    assert settings()["retention.ms"] == "604800000"

    produce(bootstrap, "admin", [(b"k", b"%d" % i, []) for i in range(10)])
    place = TopicPartition("admin", 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    assert consumer.beginning_offsets([place]) == {place: 0}
    assert consumer.end_offsets([place]) == {place: 10}
    assert consumer.offsets_for_times({place: 1})[place].offset == 0
    consumer.close()
    client.delete_records({place: 4})
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    assert consumer.beginning_offsets([place]) == {place: 4}
    consumer.close()
    client.delete_topics(["admin"])
    eventually("the deleted topic is gone", lambda: "admin" not in client.list_topics())
    client.close()


if __name__ == "__main__":
    {"roundtrip": roundtrip, "codecs": codecs, "group": group, "admin": admin}[sys.argv[2]](sys.argv[1])
