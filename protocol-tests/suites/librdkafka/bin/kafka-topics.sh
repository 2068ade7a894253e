#!/usr/bin/env python3
"""Replaces Apache Kafka's kafka-topics.sh for librdkafka's tests: supports --create, --alter and --delete of one topic."""

import argparse
import sys

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

arguments = argparse.ArgumentParser()
arguments.add_argument("--bootstrap-server", required=True)
action = arguments.add_mutually_exclusive_group(required=True)
for name in ["--create", "--alter", "--delete"]:
    action.add_argument(name, action="store_true")
arguments.add_argument("--topic", required=True)
arguments.add_argument("--partitions", type=int, default=-1)
arguments.add_argument("--replication-factor", type=int, default=-1)
arguments.add_argument("--config", action="append", default=[])
asked = arguments.parse_args()

admin = AdminClient({"bootstrap.servers": asked.bootstrap_server})
if asked.create:
    config = dict(setting.split("=", 1) for setting in asked.config)
    futures = admin.create_topics([NewTopic(asked.topic, asked.partitions, asked.replication_factor, config=config)])
elif asked.alter:
    futures = admin.create_partitions([NewPartitions(asked.topic, asked.partitions)])
else:
    futures = admin.delete_topics([asked.topic])
for future in futures.values():
    future.result(30)
sys.exit(0)
