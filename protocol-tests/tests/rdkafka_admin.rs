//! Topics and their settings, watermarks, offsets by time, and positions, with librdkafka.

use kafka_protocol::{
    messages::metadata_request::{MetadataRequest, MetadataRequestTopic},
    protocol::StrBytes,
};
use protocol_tests::{
    broker::Broker,
    clients::{
        CALL_LIMIT, Record, admin, admin_options, block_on, consumer, create_topic, produce, producer, read_all, send,
        try_send, with_coordinator,
    },
    process::eventually,
    wire::Wire,
};
use rdkafka::{
    admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{CommitMode, Consumer},
    message::Message,
    topic_partition_list::{Offset, TopicPartitionList},
    types::RDKafkaErrorCode,
};

/// The error code and id of a topic, from Metadata v12.
fn topic_id(bootstrap: &str, name: &str) -> (i16, String) {
    let topic = MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(name.to_owned()).into()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
    let answer = Wire::connect(bootstrap).ask(12, &request);
    (answer.topics[0].error_code, answer.topics[0].topic_id.to_string())
}

fn delete_topic(bootstrap: &str, name: &str) {
    let results = block_on(admin(bootstrap).delete_topics(&[name], &admin_options())).expect("call DeleteTopics");
    assert_eq!(results, [Ok(name.to_owned())]);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_starts_anew_with_another_id() {
    let mut broker =
        Broker::options().set("log.segment.delete.delay.ms", 100).set("auto.create.topics.enable", false).start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 2, &[]);
    let (code, first_id) = topic_id(&bootstrap, "t");
    assert_eq!(code, 0);
    let long_lived = producer(&bootstrap, &[("topic.metadata.refresh.interval.ms", "500")]);
    let records: Vec<Record> = (0..10).map(|i| Record::to_partition(i % 2, format!("old {i}"))).collect();
    send(&long_lived, "t", &records);
    let reader = consumer(&bootstrap, "g", &[]);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("t", 0, Offset::Offset(5)).expect("an offset");
    with_coordinator("commit", || reader.commit(&offsets, CommitMode::Sync));

    delete_topic(&bootstrap, "t");
    eventually("the topic is unknown", CALL_LIMIT, || (topic_id(&bootstrap, "t").0 == 3).then_some(()));
    let data = broker.data();
    eventually("its files are gone", CALL_LIMIT, || {
        let names =
            std::fs::read_dir(&data).expect("list the log directory").map(|entry| entry.expect("entry").file_name());
        (!names.into_iter().any(|name| name.to_string_lossy().starts_with("t-"))).then_some(())
    });

    create_topic(&bootstrap, "t", 1, &[]);
    let (code, second_id) = topic_id(&bootstrap, "t");
    assert_eq!(code, 0);
    assert_ne!(first_id, second_id);
    assert_eq!(read_all(&bootstrap, "t"), []);
    eventually("a long-lived producer finds the new topic", CALL_LIMIT, || {
        try_send(&long_lived, "t", &[Record::to_partition(0, "new")]).ok()
    });
    for _ in 0..2 {
        let read = read_all(&bootstrap, "t");
        assert!(
            !read.is_empty() && read.iter().all(|record| record.text() == "new") && read[0].offset == 0,
            "{read:?}"
        );
        assert_eq!(topic_id(&bootstrap, "t"), (0, second_id.clone()));
        broker.restart();
    }
}

#[test]
fn topics_are_created_once_and_only_with_good_names_and_counts() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    let create = |name: &str, partitions: i32, replicas: i32, setting: Option<(&str, &str)>| {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        if let Some((key, value)) = setting {
            topic = topic.set(key, value);
        }
        let result = block_on(admin(&bootstrap).create_topics([&topic], &admin_options())).expect("call CreateTopics");
        result.into_iter().next().expect("one result").map_err(|(_, code)| code)
    };
    assert_eq!(create("a.b", 1, 1, None), Ok("a.b".into()));
    assert_eq!(create("a.b", 1, 1, None), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(create("a_b", 1, 1, None), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(create("no/slash", 1, 1, None), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(create("many-replicas", 1, 2, None), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    assert_eq!(create("bad-value", 1, 1, Some(("retention.ms", "soon"))), Err(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(create("bad-key", 1, 1, Some(("retention.parsecs", "1"))), Err(RDKafkaErrorCode::InvalidConfig));
    let metadata = consumer(&bootstrap, "g", &[]).fetch_metadata(None, CALL_LIMIT).expect("metadata");
    let names: Vec<&str> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__")).collect();
    assert_eq!(names, ["a.b"]);
}

#[test]
fn partitions_can_be_added_and_records_stay_where_they_are() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    produce(&bootstrap, "t", &[], &[Record::to_partition(0, "first")]);
    let grow = |count| {
        let result = block_on(admin(&bootstrap).create_partitions([&NewPartitions::new("t", count)], &admin_options()));
        result.expect("call CreatePartitions").into_iter().next().expect("one result").map_err(|(_, code)| code)
    };
    assert_eq!(grow(3), Ok("t".into()));
    assert_eq!(grow(3), Err(RDKafkaErrorCode::InvalidPartitions));
    eventually("the new partitions take records", CALL_LIMIT, || {
        try_send(&producer(&bootstrap, &[]), "t", &[Record::to_partition(2, "last")]).ok()
    });
    let texts: Vec<(i32, String)> =
        read_all(&bootstrap, "t").iter().map(|record| (record.partition, record.text())).collect();
    assert_eq!(texts, [(0, "first".into()), (2, "last".into())]);
}

#[test]
fn settings_are_described_with_their_sources_and_altered() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[("retention.ms", "12345")]);
    let describe = |specifier: ResourceSpecifier<'_>| {
        let result =
            block_on(admin(&bootstrap).describe_configs([&specifier], &admin_options())).expect("call DescribeConfigs");
        result.into_iter().next().expect("one result").expect("described")
    };
    let topic = describe(ResourceSpecifier::Topic("t"));
    let value = |key: &str| topic.get(key).and_then(|entry| entry.value.clone());
    assert_eq!(value("retention.ms").as_deref(), Some("12345"));
    assert_eq!(value("cleanup.policy").as_deref(), Some("delete"));
    assert_eq!(value("max.message.bytes").as_deref(), Some("1048588"));
    assert!(topic.get("cleanup.policy").expect("listed").is_default);
    assert!(!topic.get("retention.ms").expect("listed").is_default);
    let broker_settings = describe(ResourceSpecifier::Broker(1));
    assert_eq!(
        broker_settings.get("group.initial.rebalance.delay.ms").and_then(|entry| entry.value.as_deref()),
        Some("0")
    );
    assert!(broker_settings.entries.len() > 150, "only {} settings", broker_settings.entries.len());

    // AlterConfigs replaces all settings of the topic.
    let alter = AlterConfig::new(ResourceSpecifier::Topic("t")).set("max.message.bytes", "2000");
    let altered = block_on(admin(&bootstrap).alter_configs([&alter], &admin_options())).expect("call AlterConfigs");
    assert!(altered[0].is_ok(), "{altered:?}");
    eventually("DescribeConfigs returns the new settings", CALL_LIMIT, || {
        let topic = describe(ResourceSpecifier::Topic("t"));
        let value = |key: &str| topic.get(key).and_then(|entry| entry.value.clone());
        (value("max.message.bytes").as_deref() == Some("2000") && value("retention.ms").as_deref() == Some("604800000"))
            .then_some(())
    });
    // The new settings are in effect.
    let refused = try_send(&producer(&bootstrap, &[]), "t", &[Record::of("k", "x".repeat(3000))]);
    assert_eq!(refused.expect_err("too large").rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
}

#[test]
fn watermarks_times_and_positions() {
    let broker = Broker::start_default();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "t", 1, &[]);
    // Small batches, so that the search by time meets both positions between batches and positions inside them.
    let records: Vec<Record> = (0..100)
        .map(|i| Record { timestamp_ms: Some(1_000_000 + i * 10), ..Record::to_partition(0, format!("{i}")) })
        .collect();
    produce(&bootstrap, "t", &[("batch.num.messages", "7")], &records);
    let reader = consumer(&bootstrap, "g", &[]);
    assert_eq!(reader.fetch_watermarks("t", 0, CALL_LIMIT).expect("watermarks"), (0, 100));
    let offset_for = |time: i64| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(time)).expect("a time");
        let found = reader.offsets_for_times(list, CALL_LIMIT).expect("offsets for times");
        found.find_partition("t", 0).expect("the partition").offset()
    };
    assert_eq!(offset_for(0), Offset::Offset(0));
    for i in [0, 1, 6, 7, 50, 99] {
        assert_eq!(offset_for(1_000_000 + i * 10), Offset::Offset(i), "at its own time");
        assert_eq!(offset_for(1_000_000 + i * 10 - 3), Offset::Offset(i), "a little before");
    }
    assert_eq!(offset_for(1_000_991), Offset::End);

    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(40)).expect("an offset");
    reader.assign(&list).expect("assign");
    let next = || {
        eventually("a record", CALL_LIMIT, || {
            let message = reader.poll(std::time::Duration::from_millis(100))?.expect("poll");
            Some((message.offset(), String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()))
        })
    };
    assert_eq!(next(), (40, "40".into()));
    reader.seek("t", 0, Offset::Offset(90), CALL_LIMIT).expect("seek forward");
    assert_eq!(next(), (90, "90".into()));
    reader.seek("t", 0, Offset::Beginning, CALL_LIMIT).expect("seek to the beginning");
    assert_eq!(next(), (0, "0".into()));
    reader.seek("t", 0, Offset::OffsetTail(1), CALL_LIMIT).expect("seek to the tail");
    assert_eq!(next(), (99, "99".into()));
}
