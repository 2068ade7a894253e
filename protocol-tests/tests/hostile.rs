//! The broker bounds time, not only memory: the largest legal requests of every API do not slow down other clients.
//!
//! `FULL=1` sends frames up to socket.request.max.bytes; without it they are small enough for a run of a few minutes.
//! `APIS=Fetch,JoinGroup` tests only these APIs.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use protocol_tests::{
    broker::Broker,
    differential::schema::{Api, Schemas},
    hostile::{
        requests::{Shape, shapes},
        trial::{ATTEMPTS, Trial, attack_limit, attempt_prepared, is_full, schemas},
        world::{Client, Size},
    },
};
use serde_json::Value;

/// Each API is attacked for at least this time, so that the other client can measure an effect.
const LEAST_TIME: Duration = Duration::from_millis(800);

/// Sizes of the requests.
struct Sizes {
    newest: usize,
    older: usize,
}

impl Sizes {
    fn of_environment() -> Sizes {
        match is_full() {
            // The rest of the 100 MiB is for the header and the last element.
            true => Sizes { newest: (100 << 20) - (64 << 10), older: 8 << 20 },
            false => Sizes { newest: 1 << 20, older: 128 << 10 },
        }
    }
}

/// The APIs that the broker advertises, with the versions that Kafka 4.3 has too.
fn served(schemas: &Schemas) -> Vec<(String, i16, i16)> {
    let broker = Broker::start_default();
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port()));
    let mut client = Client::open(schemas, address).expect("connect");
    let answer = client.ask("ApiVersions", 0, &Value::Null).expect("ask ApiVersions");
    let only = std::env::var("APIS").ok();
    let rows = answer["ApiKeys"].as_array().expect("a list of APIs").iter().map(|row| {
        let number = |name: &str| row[name].as_i64().expect("a number") as i16;
        let name = schemas.name(number("ApiKey")).expect("an API of Kafka 4.3");
        let versions = schemas.api(name).request.versions.range();
        (name.to_owned(), number("MinVersion").max(*versions.start()), number("MaxVersion").min(*versions.end()))
    });
    rows.filter(|(name, ..)| only.as_ref().is_none_or(|only| only.split(',').any(|wanted| wanted == name))).collect()
}

fn plan(api: &Api, min: i16, max: i16, sizes: &Sizes) -> Vec<(i16, Shape)> {
    let of_version = |version: i16| {
        let is_newest = version == max;
        let bytes = if is_newest { sizes.newest } else { sizes.older };
        shapes(api, version, is_newest, bytes).into_iter().map(move |shape| (version, shape))
    };
    (min..=max).flat_map(of_version).collect()
}

#[test]
fn the_largest_requests_of_every_api_hurt_nobody_but_their_sender() {
    let schemas = schemas();
    let sizes = Sizes::of_environment();
    let served = served(&schemas);
    assert!(!served.is_empty());
    let mut offenders = String::new();
    for (name, min, max) in &served {
        let plan = plan(schemas.api(name), *min, *max, &sizes);
        if plan.is_empty() {
            continue;
        }
        let mut faults = Vec::new();
        for number in 1..=ATTEMPTS {
            let prepare = |trial: &Trial| trial.frames(name, &plan);
            let report = attempt_prepared(&Size::default(), number, prepare, |trial, frames| {
                let begun = Instant::now();
                trial.send_all(frames);
                while begun.elapsed() < LEAST_TIME {
                    trial.send_all(frames);
                }
            });
            println!("{name:<28} {report}");
            faults = report.faults();
            if report.sent.len() < plan.len() {
                faults.push(format!("only {} requests within {:?}", report.sent.len(), attack_limit()));
            }
            if faults.is_empty() {
                break;
            }
            println!("  attempt {number}: {}\n{}", faults.join(", "), report.suspects());
        }
        if !faults.is_empty() {
            let _ = writeln!(offenders, "{name}: {}", faults.join(", "));
        }
    }
    assert!(offenders.is_empty(), "requests that slow down other clients:\n{offenders}");
}
