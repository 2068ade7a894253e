//! Ottla's answers against Apache Kafka's (see protocol_tests::differential).
//!
//! By default against the record. `RECORD=1` asks Apache Kafka first and rewrites the record; `AGAINST=kafka` compares a
//! live Kafka with the record, which shows whether the masks are right. `CASES='fetch-*'` picks cases.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use protocol_tests::differential::case::SERVED;
use protocol_tests::differential::run;

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
        "accepted.txt holds rows of no use: {:#?}",
        verdict.unused_rows
    );
    Ok(())
}

/// A version that Ottla serves and no case asks about would go wrong unseen.
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
    ensure!(never.is_empty(), "no case asks {never:?}");
    Ok(())
}
