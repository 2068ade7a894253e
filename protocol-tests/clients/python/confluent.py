"""Tests unmodified confluent-kafka against a broker: confluent.py BOOTSTRAP SCENARIO.

Each scenario checks its results; the first difference ends the program with a traceback and a non-zero status.
"""

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType,
)

# Longest duration of a single step on a busy machine.
LIMIT_S = 60

AWKWARD = [
    (b"key", b"value", []),
    (None, b"no key", []),
    (b"tombstone", None, []),
    (b"", b"", []),
    (bytes([0, 255, 0, 128]), bytes(range(256)) * 1000, []),
    (b"k", b"headers", [("a", b"1"), ("b", None), ("a", b"2"), ("c", b"")]),
]


def eventually(what, ask):
    deadline = time.monotonic() + LIMIT_S
    while not ask():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def results(futures):
    return {key: future.result(LIMIT_S) for key, future in futures.items()}


def error_of(future):
    try:
        future.result(LIMIT_S)
    except KafkaException as error:
        return error.args[0].name()
    return None


def create_topic(bootstrap, name, partitions=1):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    results(admin.create_topics([NewTopic(name, partitions, 1)]))


def produce(bootstrap, topic, records, **settings):
    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    failed = []
    for number, (key, value, headers) in enumerate(records):
        partition = settings_partition(number, topic)
        producer.produce(
            topic, value=value, key=key, headers=headers, partition=partition,
            on_delivery=lambda error, _message: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(LIMIT_S) == 0, "records without an acknowledgement"
    assert not failed, failed


def settings_partition(number, topic):
    """Topics of the group scenario have six partitions, filled in turn; all others have one."""
    return number % 6 if topic.startswith("group") else 0


def read(bootstrap, topic, count):
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "reader", "check.crcs": True, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages = []
    deadline = time.monotonic() + LIMIT_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records of {topic}"
        for message in consumer.consume(count - len(messages), 1):
            assert message.error() is None, message.error()
            messages.append(message)
    consumer.close()
    return messages


def same(topic, sent, messages):
    for offset, ((key, value, headers), message) in enumerate(zip(sent, messages, strict=True)):
        assert message.offset() == offset, (topic, message.offset(), offset)
        assert message.key() == key, (topic, offset, message.key())
        assert message.value() == value, (topic, offset, message.value())
        assert (message.headers() or []) == headers, (topic, offset, message.headers())


def roundtrip(bootstrap):
    variants = [
        ("idempotent", {"enable.idempotence": True}),
        ("acks-all", {"acks": "all"}), ("acks-1", {"acks": 1}), ("acks-0", {"acks": 0}),
    ]
    for name, settings in variants:
        create_topic(bootstrap, name)
        produce(bootstrap, name, AWKWARD, **settings)
        same(name, AWKWARD, read(bootstrap, name, len(AWKWARD)))


def codecs(bootstrap):
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        topic = f"codec-{codec}"
        create_topic(bootstrap, topic)
        sent = AWKWARD + [(b"key-%d" % (i % 10), b"value %d %s" % (i, b"x" * 100), []) for i in range(5000)]
        produce(bootstrap, topic, sent, **{"compression.type": codec, "linger.ms": 20})
        same(topic, sent, read(bootstrap, topic, len(sent)))


class Member:
    """A member of a group that counts the values it read."""

    def __init__(self, bootstrap, group, strategy):
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "partition.assignment.strategy": strategy,
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 200})
        self.consumer.subscribe([group])
        self.values = set()

    def poll(self):
        for message in self.consumer.consume(100, 0.05):
            assert message.error() is None, message.error()
            self.values.add(message.value())

    def partitions(self):
        return len(self.consumer.assignment())

    def positions(self):
        """Returns the position in each assigned partition."""
        return [place.offset for place in self.consumer.position(self.consumer.assignment())]

    def leave(self):
        self.consumer.commit(asynchronous=False)
        self.consumer.close()


def group(bootstrap):
    count = 600
    for strategy in ["range", "cooperative-sticky"]:
        name = f"group-{strategy}"
        create_topic(bootstrap, name, 6)

        def send(first, name=name):
            produce(bootstrap, name, [(None, b"%d" % i, []) for i in range(first, first + count)])

        def until(what, members, condition):
            def ask():
                for member in members:
                    member.poll()
                return condition()
            eventually(what, ask)

        send(0)
        first = Member(bootstrap, name, strategy)
        until("the first member reads everything", [first], lambda first=first: len(first.values) == count)
        second = Member(bootstrap, name, strategy)
        both = [first, second]
        until("three partitions each", both, lambda both=both: [m.partitions() for m in both] == [3, 3])
        send(count)
        until("both read on", both, lambda both=both: len(both[0].values | both[1].values) == 2 * count)
        first.leave()
        send(2 * count)
        until("the one that stays reads everything", [second], lambda second=second: second.positions() == [3 * count // 6] * 6)
        second.leave()

        admin = AdminClient({"bootstrap.servers": bootstrap})
        described = admin.describe_consumer_groups([name])[name].result(LIMIT_S)
        assert described.state.name == "EMPTY", described.state
        reader = Consumer({"bootstrap.servers": bootstrap, "group.id": name})
        committed = reader.committed([TopicPartition(name, p) for p in range(6)], LIMIT_S)
        assert [place.offset for place in committed] == [3 * count // 6] * 6, committed
        reader.close()


def admin(bootstrap):
    client = AdminClient({"bootstrap.servers": bootstrap})
    assert len(client.list_topics(timeout=LIMIT_S).brokers) == 1
    results(client.create_topics([NewTopic("admin", 2, 1, config={"retention.ms": "3600000"})]))
    assert error_of(client.create_topics([NewTopic("admin", 2, 1)])["admin"]) == "TOPIC_ALREADY_EXISTS"
    assert error_of(client.create_topics([NewTopic("not a name", 1, 1)])["not a name"]) == "TOPIC_EXCEPTION"
    results(client.create_partitions([NewPartitions("admin", 3)]))
    eventually("three partitions", lambda: len(client.list_topics("admin", LIMIT_S).topics["admin"].partitions) == 3)

    def settings():
        resource = ConfigResource(ResourceType.TOPIC, "admin")
        (described,) = results(client.describe_configs([resource])).values()
        return {name: entry.value for name, entry in described.items()}

    assert settings()["retention.ms"] == "3600000"
    results(client.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, "admin", incremental_configs=[
        ConfigEntry("retention.bytes", "1000000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ])]))
    altered = settings()
    assert altered["retention.bytes"] == "1000000", altered
    assert altered["retention.ms"] == "604800000", altered
    assert altered["cleanup.policy"] == "delete,compact", altered

    produce(bootstrap, "admin", [(b"k", b"%d" % i, []) for i in range(10)])
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "admin-group"})
    assert reader.get_watermark_offsets(TopicPartition("admin", 0), LIMIT_S) == (0, 10)
    assert reader.offsets_for_times([TopicPartition("admin", 0, 1)], LIMIT_S)[0].offset == 0
    reader.commit(offsets=[TopicPartition("admin", 0, 7)], asynchronous=False)
    reader.close()

    listed = client.list_consumer_groups().result(LIMIT_S)
    assert not listed.errors and [g.group_id for g in listed.valid] == ["admin-group"], listed
    results(client.delete_consumer_groups(["admin-group"]))
    assert error_of(client.delete_consumer_groups(["admin-group"])["admin-group"]) == "GROUP_ID_NOT_FOUND"
    deleted = results(client.delete_records([TopicPartition("admin", 0, 4)]))
    assert [place.low_watermark for place in deleted.values()] == [4], deleted
    results(client.delete_topics(["admin"]))
    eventually("the deleted topic is gone", lambda: "admin" not in client.list_topics(timeout=LIMIT_S).topics)


if __name__ == "__main__":
    {"roundtrip": roundtrip, "codecs": codecs, "group": group, "admin": admin}[sys.argv[2]](sys.argv[1])
