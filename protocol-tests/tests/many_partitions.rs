//! A topic with very many partitions: its logs are opened and removed in portions, and other clients do not wait for
//! it.

use std::time::{Duration, Instant};

use protocol_tests::{
    broker::BrokerOptions,
    clients::{Record, admin, admin_options, block_on, create_topic, producer, read_all, send},
};
use rdkafka::admin::{NewTopic, TopicReplication};

const MANY: i32 = 1_500;

fn delete_topic(bootstrap: &str, name: &str) {
    let deleted = block_on(admin(bootstrap).delete_topics(&[name], &admin_options())).expect("ask");
    assert!(deleted[0].is_ok(), "{deleted:?}");
}

#[test]
fn a_topic_of_many_partitions_works_at_once_and_keeps_nobody_waiting() {
    let broker = BrokerOptions::default().start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "small", 1, &[]);
    // Creates the topic, deletes it and creates it again. Each time the last partition works as soon as the answer
    // comes.
    for round in 0..2 {
        let many = NewTopic::new("many", MANY, TopicReplication::Fixed(1));
        let admin = admin(&bootstrap);
        let created = std::thread::scope(|scope| {
            let creating = scope.spawn(|| {
                let started = Instant::now();
                let created = block_on(admin.create_topics(&[many], &admin_options())).expect("ask");
                (created, started.elapsed())
            });
            // Meanwhile other clients create topics.
            let (mut others, mut longest) = (0, Duration::ZERO);
            while !creating.is_finished() {
                let started = Instant::now();
                create_topic(&bootstrap, &format!("other-{round}-{others}"), 1, &[]);
                longest = longest.max(started.elapsed());
                others += 1;
            }
            let (created, took) = creating.join().expect("join");
            eprintln!("{MANY} partitions took {took:?}; {others} other topics meanwhile, at most {longest:?} each");
            created
        });
        assert!(created[0].is_ok(), "{created:?}");
        let producer = producer(&bootstrap, &[("retries", "0")]);
        send(&producer, "many", &[Record::to_partition(MANY - 1, format!("round {round}"))]);
        assert_eq!(
            read_all(&bootstrap, "many").iter().map(|stored| stored.text()).collect::<Vec<_>>(),
            [format!("round {round}")]
        );
        delete_topic(&bootstrap, "many");
    }
    assert_eq!(read_all(&bootstrap, "small").len(), 0);
}
