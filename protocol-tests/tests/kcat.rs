//! The most common kcat commands, with Debian's kcat and its old librdkafka (2.0.2).

use std::{
    io::Write,
    process::{Command, Stdio},
};

use protocol_tests::{broker::Broker, foreign::succeed};

fn kcat(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", &broker.bootstrap()]).args(arguments);
    command
}

/// Runs kcat with `lines` on its standard input.
fn produce(broker: &Broker, arguments: &[&str], lines: &str) {
    let mut command = kcat(broker, arguments);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("start kcat");
    child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).expect("write to kcat");
    let status = child.wait().expect("wait for kcat");
    assert!(status.success(), "{command:?} ended with {status}");
}

fn consume(broker: &Broker, arguments: &[&str]) -> String {
    succeed(kcat(broker, arguments), "consume")
}

#[test]
fn kcat_produces_and_consumes_with_every_codec() {
    let broker = Broker::start_default();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        // The first record creates the topic.
        let topic = format!("kcat-{codec}");
        let lines: String = (0..2_000).map(|i| format!("key-{}:value {i} {}\n", i % 10, "x".repeat(100))).collect();
        produce(&broker, &["-P", "-t", &topic, "-p", "0", "-K", ":", "-z", codec], &lines);
        let read = consume(&broker, &["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-K", ":"]);
        assert_eq!(read, lines, "{codec}");
    }
}

#[test]
fn kcat_keeps_headers_and_empty_values() {
    let broker = Broker::start_default();
    produce(&broker, &["-P", "-t", "t", "-p", "0", "-K", ":", "-H", "a=1", "-H", "b", "-H", "a=2"], "k:v\n");
    produce(&broker, &["-P", "-t", "t", "-p", "0", "-K", ":", "-Z"], "gone:\n");
    let read = consume(&broker, &["-C", "-t", "t", "-p", "0", "-o", "beginning", "-e", "-f", "%o %k=%s %S [%h]\n"]);
    assert_eq!(read, "0 k=v 1 [a=1,b=NULL,a=2]\n1 gone= -1 []\n");
}

#[test]
fn kcat_starts_where_it_is_told() {
    let broker = Broker::start_default();
    let lines: String = (0..100).map(|i| format!("{i}\n")).collect();
    produce(&broker, &["-P", "-t", "t", "-p", "0"], &lines);
    let from =
        |offset: &str, count: &str| consume(&broker, &["-C", "-t", "t", "-p", "0", "-o", offset, "-c", count, "-e"]);
    assert_eq!(from("beginning", "2"), "0\n1\n");
    assert_eq!(from("42", "1"), "42\n");
    assert_eq!(from("-3", "10"), "97\n98\n99\n");
    assert_eq!(from("s@1000", "1"), "0\n");
    assert_eq!(from("end", "1"), "");
    // -Q asks for the offset of a timestamp.
    assert_eq!(consume(&broker, &["-Q", "-t", "t:0:1000"]).trim(), "t [0] offset 0");
}

#[test]
fn kcat_lists_the_cluster() {
    let broker = Broker::options().set("num.partitions", 3).start();
    produce(&broker, &["-P", "-t", "listed", "-p", "0"], "x\n");
    let listed = succeed(kcat(&broker, &["-L"]), "list");
    assert!(listed.contains(" 1 brokers:\n"), "{listed}");
    assert!(listed.contains(&format!("at {}", broker.bootstrap())), "{listed}");
    assert!(
        listed.contains("  topic \"listed\" with 3 partitions:\n    partition 0, leader 1, replicas: 1, isrs: 1\n"),
        "{listed}"
    );
}

#[test]
fn kcat_consumes_in_a_group_and_goes_on_where_it_was() {
    let broker = Broker::start_default();
    produce(&broker, &["-P", "-t", "t", "-p", "0"], "1\n2\n3\n");
    let group = |count: &str| consume(&broker, &["-X", "auto.offset.reset=earliest", "-c", count, "-G", "g", "t"]);
    assert_eq!(group("2"), "1\n2\n");
    assert_eq!(group("1"), "3\n");
}
