//! Compares Ottla's answers with Apache Kafka's (see protocol_tests::differential).
//!
//! By default Kafka's answers come from the record. `RECORD=1` first runs Apache Kafka and rewrites the record;
//! `AGAINST=kafka` compares a live Kafka with the record, which shows whether the masks are right. `CASES='fetch-*'`
//! selects cases.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use protocol_tests::differential::{
    case::{Case, SERVED},
    cases::SHARED,
    run,
};
use serde_json::json;

#[test]
fn answers_are_those_of_apache_kafka() -> Result<()> {
    let schemas = run::load_schemas()?;
    let pattern = std::env::var("CASES").unwrap_or_else(|_| "*".into());
    if std::env::var_os("RECORD").is_some() {
        run::record(run::transcripts(&schemas, &pattern, &run::start_kafka)?)?;
    }
    let start: run::Start = match std::env::var("AGAINST").as_deref() {
        Ok("kafka") => &run::start_kafka,
        _ => &run::start_ottla,
    };
    let verdict = run::compare(&run::recorded()?, &run::transcripts(&schemas, &pattern, start)?)?;
    for difference in &verdict.unaccepted {
        println!("{difference}");
    }
    println!("{} answers, {} accepted differences", verdict.steps, verdict.accepted);
    ensure!(verdict.unaccepted.is_empty(), "{} answers differ from Apache Kafka's", verdict.unaccepted.len());
    ensure!(
        pattern != "*" || verdict.unused_rows.is_empty(),
        "accepted.txt has rows that no difference needs: {:#?}",
        verdict.unused_rows
    );
    Ok(())
}

/// Without a case, a fault in a supported version would not be noticed.
#[test]
fn every_served_version_is_asked() -> Result<()> {
    let recorded = run::recorded()?;
    let asked: BTreeSet<&str> =
        recorded.values().flatten().map(|step| step.ask.split(" [").next().unwrap_or_default()).collect();
    let never: Vec<String> = SERVED
        .iter()
        .flat_map(|(api, versions)| versions.clone().map(move |version| format!("{api} v{version}")))
        .filter(|ask| !asked.contains(ask.as_str()))
        .collect();
    ensure!(never.is_empty(), "no case sends {never:?}");
    Ok(())
}

/// AddRaftVoter and RemoveRaftVoter change the voters of the server that all cases share. Kafka's own tool asks them of
/// nodes of their own (`quorum`).
const ASKED_BY_TOOLS: [i64; 2] = [80, 81];

/// The cases cover exactly the APIs and versions that the broker advertises. Produce is advertised from version 0 on,
/// for old clients (KIP-896).
#[test]
fn every_advertised_api_is_asked() -> Result<()> {
    let schemas = run::load_schemas()?;
    let server = run::start_ottla(&SHARED)?;
    let told = Case::new("advertised", &schemas, &server.addresses())?.quietly("ApiVersions", 0, json!({}));
    let told: BTreeSet<(i64, i64, i64)> = told["ApiKeys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|api| Some((api["ApiKey"].as_i64()?, api["MinVersion"].as_i64()?, api["MaxVersion"].as_i64()?)))
        .filter(|(key, ..)| !ASKED_BY_TOOLS.contains(key))
        .collect();
    let asked: BTreeSet<(i64, i64, i64)> = SERVED
        .iter()
        .map(|(name, versions)| {
            let first = if *name == "Produce" { 0 } else { *versions.start() };
            (schemas.api(name).key.into(), first.into(), (*versions.end()).into())
        })
        .collect();
    ensure!(told == asked, "advertised {told:?}, covered by the cases {asked:?}");
    Ok(())
}
