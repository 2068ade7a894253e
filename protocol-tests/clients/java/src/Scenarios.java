import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** Scenarios of the Java clients against the broker under test: one method each; an exception means failure. */
public final class Scenarios {
    private static final Duration POLL = Duration.ofMillis(50);
    private static final long LIMIT_MS = 60_000;

    public static void main(String[] arguments) throws Exception {
        try {
            Scenarios.class.getDeclaredMethod(arguments[0], String.class).invoke(null, arguments[1]);
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (e.getCause() instanceof Error error) {
                throw error;
            }
            throw (Exception) e.getCause();
        }
        System.out.println(arguments[0] + " passed");
    }

    // ---- scenarios

    static void codecs(String bootstrap) throws Exception {
        create(bootstrap, "codecs", 1);
        List<byte[]> sent = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (Producer<byte[], byte[]> producer = producer(bootstrap, Map.of("compression.type", codec, "linger.ms", "20"))) {
                List<Future<RecordMetadata>> futures = new ArrayList<>();
                for (int i = 0; i < 2000; i++) {
                    byte[] value = (codec + " " + i + " " + "z".repeat(i % 300)).getBytes(StandardCharsets.UTF_8);
                    ProducerRecord<byte[], byte[]> record = new ProducerRecord<>("codecs", 0, i % 3 == 0 ? null : new byte[] {(byte) i}, value);
                    record.headers().add("h", value).add("h", null).add("codec", codec.getBytes(StandardCharsets.UTF_8));
                    futures.add(producer.send(record));
                    sent.add(value);
                }
                long expected = sent.size() - 2000;
                for (Future<RecordMetadata> future : futures) {
                    check(future.get().offset() == expected++, "offset of an acknowledgement");
                }
            }
        }
        List<ConsumerRecord<byte[], byte[]>> read = readAll(bootstrap, "codecs", sent.size());
        for (int i = 0; i < sent.size(); i++) {
            ConsumerRecord<byte[], byte[]> record = read.get(i);
            check(record.offset() == i && java.util.Arrays.equals(record.value(), sent.get(i)), "record " + i);
            check(i % 2000 % 3 == 0 ? record.key() == null : record.key()[0] == (byte) (i % 2000), "key of record " + i);
            Header[] headers = record.headers().toArray();
            check(headers.length == 3 && headers[1].value() == null && headers[2].key().equals("codec"), "headers of record " + i);
        }
    }

    static void producer(String bootstrap) throws Exception {
        create(bootstrap, "p", 3);
        try (Producer<byte[], byte[]> producer = producer(bootstrap, Map.of("max.request.size", "20000000", "batch.size", "100000"))) {
            for (int i = 0; i < 30_000; i++) {
                producer.send(new ProducerRecord<>("p", i % 3, null, Integer.toString(i).getBytes(StandardCharsets.UTF_8)));
            }
            producer.flush();
            fails(RecordTooLargeException.class, () -> producer.send(new ProducerRecord<>("p", 0, null, new byte[2_000_000])).get());
            fails(InvalidTimestampException.class,
                () -> producer.send(new ProducerRecord<>("p", 0, System.currentTimeMillis() + 7_200_000, null, new byte[1])).get());
            // The producer still works after both errors.
            producer.send(new ProducerRecord<>("p", 0, null, "30000".getBytes(StandardCharsets.UTF_8))).get();
        }
        List<ConsumerRecord<byte[], byte[]>> read = readAll(bootstrap, "p", 30_001);
        Map<Integer, Integer> next = new HashMap<>(Map.of(0, 0, 1, 1, 2, 2));
        for (ConsumerRecord<byte[], byte[]> record : read) {
            int value = Integer.parseInt(new String(record.value(), StandardCharsets.UTF_8));
            check(value == next.get(record.partition()), "order in partition " + record.partition() + ": " + value);
            next.put(record.partition(), value + 3);
        }
    }

    static void transactionsAreRefused(String bootstrap) {
        long start = System.nanoTime();
        try (Producer<byte[], byte[]> producer = producer(bootstrap, Map.of("transactional.id", "t"))) {
            producer.initTransactions();
            throw new AssertionError("transactions are there: this scenario has had its time");
        } catch (KafkaException e) {
            check(e.getMessage().contains("transactions are not served"), "a reason in words: " + e);
        }
        // Far below max.block.ms, which is a minute.
        check(System.nanoTime() - start < 20e9, "an answer at once");
    }

    static void cooperativeGroup(String bootstrap) throws Exception {
        create(bootstrap, "c", 12);
        Map<String, String> settings = Map.of(
            "group.id", "cooperative", "partition.assignment.strategy", CooperativeStickyAssignor.class.getName(),
            "heartbeat.interval.ms", "200", "session.timeout.ms", "6000");
        List<Member> members = new ArrayList<>();
        Set<String> values = new HashSet<>();
        int[] sizes = {12, 6, 4, 3};
        int sent = 0;
        for (int size : sizes) {
            members.add(new Member(bootstrap, "c", settings));
            settle(members, size, values);
            sent = produceNumbers(bootstrap, "c", 12, sent, 120);
            readUntil(members, values, sent);
            // A cooperative member loses only the partitions that move, never all of them.
            for (Member member : members) {
                check(member.revokedAllAtOnce == 0, "a member lost everything at once");
            }
        }
        while (members.size() > 1) {
            Member leaving = members.remove(0);
            leaving.consumer.commitSync();
            leaving.consumer.close();
            settle(members, 12 / members.size(), values);
            sent = produceNumbers(bootstrap, "c", 12, sent, 120);
            readUntil(members, values, sent);
        }
        members.get(0).consumer.commitSync();
        Map<TopicPartition, OffsetAndMetadata> committed = members.get(0).consumer.committed(members.get(0).consumer.assignment());
        long total = committed.values().stream().mapToLong(OffsetAndMetadata::offset).sum();
        check(total == sent, "committed " + total + " of " + sent);
        members.get(0).consumer.close();
    }

    static void staticMembership(String bootstrap) throws Exception {
        create(bootstrap, "s", 4);
        Map<String, String> settings = Map.of("group.id", "static", "session.timeout.ms", "30000", "heartbeat.interval.ms", "200");
        Map<String, String> one = with(settings, "group.instance.id", "one");
        Map<String, String> two = with(settings, "group.instance.id", "two");
        Member first = new Member(bootstrap, "s", one);
        Member second = new Member(bootstrap, "s", two);
        Set<String> values = new HashSet<>();
        settle(List.of(first, second), 2, values);
        Set<TopicPartition> before = first.consumer.assignment();
        int rebalances = second.rebalances;
        first.consumer.close();
        Member again = new Member(bootstrap, "s", one);
        settle(List.of(again, second), 2, values);
        check(again.consumer.assignment().equals(before), "the instance has other partitions than before");
        check(second.rebalances == rebalances, "the other member was disturbed");
        try (Admin admin = admin(bootstrap)) {
            ConsumerGroupDescription group = admin.describeConsumerGroups(List.of("static")).all().get().get("static");
            Set<String> instances = new TreeSet<>();
            group.members().forEach(member -> instances.add(member.groupInstanceId().orElse("none")));
            check(instances.equals(Set.of("one", "two")), "instances " + instances);
            // Two members have the same instance id: the older one is fenced.
            Member usurper = new Member(bootstrap, "s", two);
            await("the replaced member is fenced", () -> {
                usurper.poll(values);
                try {
                    second.consumer.poll(POLL);
                    return false;
                } catch (FencedInstanceIdException e) {
                    return true;
                }
            });
            second.consumer.close();
            again.consumer.close();
            usurper.consumer.close();
            // Static members do not leave the group by themselves; an operator removes them.
            admin.removeMembersFromConsumerGroup("static", new RemoveMembersFromConsumerGroupOptions(
                Set.of(new MemberToRemove("one"), new MemberToRemove("two")))).all().get();
            group = admin.describeConsumerGroups(List.of("static")).all().get().get("static");
            check(group.groupState() == GroupState.EMPTY, "state " + group.groupState());
        }
    }

    static void seekPauseAndTimes(String bootstrap) throws Exception {
        create(bootstrap, "t", 2);
        try (Producer<byte[], byte[]> producer = producer(bootstrap, Map.of("batch.size", "300"))) {
            for (int i = 0; i < 200; i++) {
                producer.send(new ProducerRecord<>("t", i % 2, 1_000_000L + i * 10, null, Integer.toString(i).getBytes(StandardCharsets.UTF_8)));
            }
        }
        TopicPartition zero = new TopicPartition("t", 0);
        TopicPartition one = new TopicPartition("t", 1);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("max.poll.records", "10"))) {
            consumer.assign(List.of(zero, one));
            check(consumer.beginningOffsets(List.of(zero, one)).equals(Map.of(zero, 0L, one, 0L)), "beginning offsets");
            check(consumer.endOffsets(List.of(zero, one)).equals(Map.of(zero, 100L, one, 100L)), "end offsets");
            Map<TopicPartition, OffsetAndTimestamp> found = consumer.offsetsForTimes(Map.of(zero, 1_000_095L, one, 999_999_999L));
            check(found.get(zero).offset() == 5 && found.get(zero).timestamp() == 1_000_100L, "offset for a time: " + found);
            check(found.get(zero).leaderEpoch().isPresent(), "the leader epoch of an offset for a time");
            check(found.get(one) == null, "no offset for a time to come");
            consumer.seek(zero, 90);
            consumer.pause(List.of(one));
            Set<Long> offsets = new TreeSet<>();
            await("the last ten of partition 0", () -> {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    check(record.partition() == 0, "a record of a paused partition");
                    offsets.add(record.offset());
                }
                return offsets.size() == 10;
            });
            check(offsets.contains(90L) && offsets.contains(99L), "offsets " + offsets);
            consumer.resume(List.of(one));
            int[] count = {0};
            await("all of partition 1", () -> {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    check(record.partition() == 1 && record.offset() == count[0]++, "records of partition 1 in order");
                }
                return count[0] == 100;
            });
            consumer.seekToBeginning(List.of(zero));
            check(consumer.position(zero) == 0, "position at the beginning");
            consumer.seekToEnd(List.of(zero));
            check(consumer.position(zero) == 100, "position at the end");
            check(consumer.currentLag(one).orElse(-1) == 0, "lag of partition 1");
            consumer.seek(zero, 1000);
            check(consumer.poll(Duration.ofMillis(1)) != null, "poll");
            await("an offset out of range is reset to the earliest", () -> {
                consumer.poll(POLL);
                return consumer.position(zero) <= 100;
            });
        }
        // Without transactions read_committed returns the same records.
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("isolation.level", "read_committed"))) {
            consumer.assign(List.of(zero, one));
            consumer.seekToBeginning(List.of(zero, one));
            int[] count = {0};
            await("all records by read_committed", () -> (count[0] += consumer.poll(POLL).count()) == 200);
        }
    }

    static void administration(String bootstrap) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            check(admin.describeCluster().nodes().get().size() == 1, "one node");
            check(admin.describeCluster().controller().get() != null, "a controller");
            NewTopic wanted = new NewTopic("a", Optional.of(3), Optional.empty()).configs(Map.of("retention.ms", "1000000"));
            CreateTopicsResult validated = admin.createTopics(List.of(wanted), new CreateTopicsOptions().validateOnly(true));
            validated.all().get();
            check(!admin.listTopics().names().get().contains("a"), "validateOnly creates nothing");
            CreateTopicsResult created = admin.createTopics(List.of(wanted));
            created.all().get();
            check(created.numPartitions("a").get() == 3 && created.replicationFactor("a").get() == 1, "counts of the new topic");
            check(created.config("a").get().get("retention.ms").value().equals("1000000"), "settings of the new topic");
            Uuid id = created.topicId("a").get();
            check(admin.listTopics().namesToListings().get().get("a").topicId().equals(id), "topic id");
            check(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name().equals("a"), "by id");
            fails(TopicExistsException.class, () -> admin.createTopics(List.of(wanted)).all().get());
            fails(InvalidReplicationFactorException.class,
                () -> admin.createTopics(List.of(new NewTopic("b", 1, (short) 3))).all().get());
            admin.createPartitions(Map.of("a", NewPartitions.increaseTo(5))).all().get();
            check(admin.describeTopics(List.of("a")).allTopicNames().get().get("a").partitions().size() == 5, "five partitions");

            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, "a");
            admin.incrementalAlterConfigs(Map.of(topic, List.of(
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
                new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE)))).all().get();
            Config config = admin.describeConfigs(List.of(topic),
                new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(topic);
            check(config.get("cleanup.policy").value().equals("delete,compact"), "appended: " + config.get("cleanup.policy").value());
            check(config.get("retention.ms").source() == ConfigEntry.ConfigSource.DEFAULT_CONFIG, "deleted: back to the default");
            check(config.get("retention.ms").documentation() != null, "documentation");
            check(config.get("retention.ms").type() == ConfigEntry.ConfigType.LONG, "type");
            fails(InvalidConfigurationException.class, () -> admin.incrementalAlterConfigs(Map.of(topic, List.of(
                new AlterConfigOp(new ConfigEntry("retention.ms", "x"), AlterConfigOp.OpType.SET)))).all().get());
            admin.listConfigResources().all().get();

            // A compacted topic would refuse records without a key.
            admin.incrementalAlterConfigs(Map.of(topic, List.of(
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.SUBTRACT)))).all().get();
            produceNumbers(bootstrap, "a", 5, 0, 50);
            TopicPartition partition = new TopicPartition("a", 0);
            check(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all().get().get(partition).offset() == 10, "latest");
            check(admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset() == 0, "earliest");
            check(admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition).offset() == 9, "max timestamp");
            check(admin.listOffsets(Map.of(partition, OffsetSpec.earliestLocal())).all().get().get(partition).offset() == 0, "local");
            Map<Integer, Map<String, LogDirDescription>> dirs = admin.describeLogDirs(List.of(1)).allDescriptions().get();
            LogDirDescription dir = dirs.get(1).values().iterator().next();
            check(dir.error() == null && dir.totalBytes().isPresent() && dir.replicaInfos().containsKey(partition), "log dirs");

            admin.alterConsumerGroupOffsets("offline", Map.of(partition, new OffsetAndMetadata(7, "note"))).all().get();
            OffsetAndMetadata stored = admin.listConsumerGroupOffsets("offline").partitionsToOffsetAndMetadata().get().get(partition);
            check(stored.offset() == 7 && stored.metadata().equals("note"), "stored offset " + stored);
            check(admin.listGroups().all().get().stream().anyMatch(group -> group.groupId().equals("offline")), "the group is listed");
            admin.deleteConsumerGroupOffsets("offline", Set.of(partition)).all().get();
            check(admin.listConsumerGroupOffsets("offline").partitionsToOffsetAndMetadata().get().get(partition) == null, "deleted offset");
            admin.alterConsumerGroupOffsets("offline", Map.of(partition, new OffsetAndMetadata(8))).all().get();
            admin.deleteConsumerGroups(List.of("offline")).all().get();
            fails(GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of("offline")).all().get());

            QuorumInfo quorum = admin.describeMetadataQuorum().quorumInfo().get();
            check(quorum.leaderId() == 1 && quorum.voters().size() == 1 && quorum.highWatermark() > 0, "quorum " + quorum);
            check(admin.describeFeatures().featureMetadata().get().finalizedFeatures().containsKey("metadata.version"), "features");
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            await("the topic is gone", () -> {
                try {
                    return !admin.listTopics().names().get().contains("a");
                } catch (InterruptedException | ExecutionException e) {
                    throw new IllegalStateException(e);
                }
            });
            fails(UnknownTopicOrPartitionException.class, () -> admin.describeTopics(List.of("a")).allTopicNames().get());
        }
    }

    // ---- helpers

    /** A consumer in a group that counts its rebalances. */
    private static final class Member implements ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        int rebalances;
        int revokedAllAtOnce;

        Member(String bootstrap, String topic, Map<String, String> settings) {
            consumer = Scenarios.consumer(bootstrap, settings);
            consumer.subscribe(List.of(topic), this);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            if (!partitions.isEmpty()) {
                rebalances++;
                consumer.commitSync();
            }
            if (partitions.size() > 1 && partitions.size() == consumer.assignment().size()) {
                revokedAllAtOnce++;
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) { }

        void poll(Set<String> values) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                String value = new String(record.value(), StandardCharsets.UTF_8);
                check(values.add(value), "record " + value + " was read twice");
            }
        }
    }

    private static void settle(List<Member> members, int size, Set<String> values) {
        await("every member has " + size + " partitions", () -> {
            members.forEach(member -> member.poll(values));
            return members.stream().allMatch(member -> member.consumer.assignment().size() == size);
        });
        Set<TopicPartition> all = new HashSet<>();
        members.forEach(member -> all.addAll(member.consumer.assignment()));
        check(all.size() == size * members.size(), "a partition has two owners");
    }

    private static void readUntil(List<Member> members, Set<String> values, int count) {
        await(count + " records are read", () -> {
            members.forEach(member -> member.poll(values));
            return values.size() == count;
        });
    }

    private static int produceNumbers(String bootstrap, String topic, int partitions, int from, int count) {
        try (Producer<byte[], byte[]> producer = producer(bootstrap, Map.of())) {
            for (int i = from; i < from + count; i++) {
                // close() waits for all records; a failed one would be missing when the topic is read.
                producer.send(new ProducerRecord<>(topic, i % partitions, 1_700_000_000_000L + i, null, Integer.toString(i).getBytes(StandardCharsets.UTF_8)));
            }
        }
        return from + count;
    }

    private static List<ConsumerRecord<byte[], byte[]>> readAll(String bootstrap, String topic, int count) {
        List<ConsumerRecord<byte[], byte[]>> read = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(partition -> partitions.add(new TopicPartition(topic, partition.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            await(count + " records of " + topic, () -> {
                consumer.poll(POLL).forEach(read::add);
                return read.size() >= count;
            });
            check(read.size() == count, "more records than were sent: " + read.size());
        }
        return read;
    }

    private static void create(String bootstrap, String topic, int partitions) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        }
    }

    private static Admin admin(String bootstrap) {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private static Producer<byte[], byte[]> producer(String bootstrap, Map<String, String> settings) {
        return new KafkaProducer<>(new HashMap<>(with(settings, "bootstrap.servers", bootstrap)), new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, String> settings) {
        Map<String, Object> all = new HashMap<>(with(settings, "bootstrap.servers", bootstrap));
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static Map<String, String> with(Map<String, String> settings, String key, String value) {
        Map<String, String> more = new HashMap<>(settings);
        more.put(key, value);
        return more;
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static void await(String what, BooleanSupplier condition) {
        long deadline = System.currentTimeMillis() + LIMIT_MS;
        while (!condition.getAsBoolean()) {
            check(System.currentTimeMillis() < deadline, "not within " + LIMIT_MS + " ms: " + what);
        }
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void fails(Class<? extends Throwable> with, Call call) throws Exception {
        try {
            call.run();
        } catch (ExecutionException e) {
            check(with.isInstance(e.getCause()), "expected " + with.getSimpleName() + ", got " + e.getCause());
            return;
        }
        throw new AssertionError("should fail with " + with.getSimpleName());
    }
}
