//! Tests of both stores against the image: a load returns the applied image or an error.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{env::SystemDisk, metadata::records::*, sim::until_blocking};

/// Makes a record from the random numbers of the test.
fn record(image: &MetadataImage, kind: u8, at: u8) -> MetadataRecord {
    let topic = format!("t{}", at % 7);
    match (kind % 6, image.topic(&topic)) {
        (0, None) => TopicRecord { name: topic, topic_id: Uuid::new_v4() }.into(),
        (0 | 1, Some(topic)) => PartitionRecord {
            partition_id: topic.partitions.len() as i32,
            topic_id: topic.id.0,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            directories: vec![Uuid::from_u128(500)],
            ..Default::default()
        }
        .into(),
        (2, Some(topic)) if at.is_multiple_of(3) => RemoveTopicRecord { topic_id: topic.id.0 }.into(),
        (3, _) => {
            ProducerIdsRecord { broker_id: 1, broker_epoch: 0, next_producer_id: image.next_producer_id + 1000 }.into()
        }
        (4, _) => ClientQuotaRecord {
            entity: vec![QuotaEntityData {
                entity_type: "user".into(),
                entity_name: (at > 100).then(|| topic.clone()),
            }],
            key: "producer_byte_rate".into(),
            value: f64::from(at),
            remove: at.is_multiple_of(2),
        }
        .into(),
        _ => ConfigRecord {
            resource_type: 2,
            resource_name: topic,
            name: "k".into(),
            value: at.is_multiple_of(4).then(|| at.to_string()),
        }
        .into(),
    }
}

/// Applies random changes in batches to an image and a store. Reopens the store with `reopen` after each batch and
/// compares it with the image.
fn agrees(
    changes: Vec<Vec<(u8, u8)>>,
    mut store: Box<dyn MetadataStore>,
    mut reopen: impl FnMut(Box<dyn MetadataStore>) -> Box<dyn MetadataStore>,
) {
    let mut image = MetadataImage::default();
    for batch in changes {
        let mut delta = MetadataDelta::default();
        for (kind, at) in batch {
            image.apply(&record(&image, kind, at), &mut delta).unwrap();
            image.provenance.last_contained_offset += 1;
        }
        store.apply(&image, &delta).unwrap();
        store = reopen(store);
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded, image);
        assert_eq!(loaded.checksum(), image.checksum());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..Default::default() })]

    #[test]
    fn inv_m2_the_memory_store_gives_back_the_image(changes in prop::collection::vec(prop::collection::vec(any::<(u8, u8)>(), 1..60), 1..8)) {
        agrees(changes, Box::<MemStore>::default(), |store| store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..Default::default() })]

    #[test]
    fn inv_m2_the_sled_store_gives_back_the_image_over_reopenings(changes in prop::collection::vec(prop::collection::vec(any::<(u8, u8)>(), 1..60), 1..5)) {
        let dir = tempfile::tempdir().unwrap();
        // After the drop a thread of sled may hold the lock of the previous database for a moment.
        let open = || {
            let mut opened = None;
            until_blocking("the store is unlocked", || {
                match SledStore::open(Arc::new(SystemDisk), &dir.path().join("s")) {
                    Ok(store) => opened = Some(Box::new(store)),
                    Err(error) => assert!(error.to_string().contains("WouldBlock"), "{error}"),
                }
                opened.is_some()
            });
            opened.unwrap()
        };
        agrees(changes, open(), |mut store| {
            store.checkpoint().unwrap();
            drop(store);
            open()
        });
    }
}

fn filled() -> MemStore {
    let (mut image, mut store, mut delta) = (MetadataImage::default(), MemStore::default(), MetadataDelta::default());
    for at in 0..200u8 {
        image.apply(&record(&image, at, at), &mut delta).unwrap();
    }
    store.apply(&image, &delta).unwrap();
    store
}

#[test]
fn a_value_that_is_missing_left_over_or_changed_by_a_bit_is_found_at_load() {
    let filled = filled();
    for key in filled.entries.keys() {
        let mut missing = filled.clone();
        missing.entries.remove(key);
        assert!(missing.load().is_err(), "missing {key:?}");
        let mut changed = filled.clone();
        let value = changed.entries.get_mut(key).unwrap();
        let middle = value.len() / 2;
        value[middle] ^= 4;
        assert!(changed.load().is_err(), "changed {key:?}");
    }
    let mut left_over = filled;
    let (key, value) = seal_records(
        config_key(&ConfigResource::topic("old")),
        [ConfigRecord { resource_type: 2, ..Default::default() }.into()],
    );
    left_over.entries.insert(key, value.unwrap());
    assert!(matches!(left_over.load(), Err(StoreError::Checksum { .. })));
}

#[test]
fn an_empty_store_is_no_image_and_an_emptied_image_is_one() {
    let mut store = MemStore::default();
    assert!(store.load().unwrap().is_none());
    store.apply(&MetadataImage::default(), &MetadataDelta::default()).unwrap();
    assert!(store.load().unwrap().is_some());
}

#[test]
fn a_large_topic_is_spread_over_values_of_a_few_kilobytes() {
    let (mut image, mut delta) = (MetadataImage::default(), MetadataDelta::default());
    let topic_id = Uuid::from_u128(1);
    image.apply(&TopicRecord { name: "t".into(), topic_id }.into(), &mut delta).unwrap();
    for partition_id in 0..2000 {
        image
            .apply(
                &PartitionRecord { partition_id, topic_id, replicas: vec![1, 2, 3], ..Default::default() }.into(),
                &mut delta,
            )
            .unwrap();
    }
    let sizes: Vec<usize> = changes(&image, &delta).into_iter().filter_map(|(_, value)| Some(value?.len())).collect();
    assert!(sizes.len() > 60 && sizes.iter().all(|size| *size < 8192), "{sizes:?}");
}

#[test]
fn an_engine_that_panics_when_it_is_dropped_ends_nothing() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("cannot write unsaved data");
        }
    }
    drop(PanicSafe::new(Panics));
}
