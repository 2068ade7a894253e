//! `ottla health`: sends an ApiVersions and a Metadata request, as every client does at first.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use super::Health;
use crate::{
    config::{Arguments, Settings},
    env::Env,
    peer::Peer,
};

/// Larger responses are not read.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const API_VERSIONS_VERSION: i16 = 0;
const METADATA_VERSION: i16 = 5;

/// Asks the broker. Returns its state in one line.
///
/// # Errors
/// The step that failed, from resolving the address to decoding the response.
pub async fn check(
    env: &Env,
    health: &Health,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String> {
    let server = match &health.bootstrap_server {
        Some(server) => server.clone(),
        None => server_of_settings(env, &health.config, environment)?,
    };
    let timeout = Duration::from_millis(health.timeout_ms);
    let deadline = env.clock.sleep_until(env.clock.monotonic() + timeout);
    tokio::select! {
        biased;
        answer = ask(env, &server) => answer.with_context(|| format!("ask {server}")),
        () = deadline => bail!("ask {server}: no answer within {} ms", health.timeout_ms),
    }
}

/// Finds the broker's listener from the files and `KAFKA_…` variables that it was started with, for use in its
/// container.
fn server_of_settings(
    env: &Env,
    files: &[PathBuf],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String> {
    let arguments = Arguments { config_files: files.to_vec(), ..Arguments::default() };
    // Ignore ./config.toml: it is unknown whether the broker was started in this directory.
    let read = |path: &Path| match files.iter().any(|file| file == path) {
        true => env.disk.read(path),
        false => Err(io::ErrorKind::NotFound.into()),
    };
    let settings = Settings::load(&arguments, environment, &read)?;
    let listener = settings.listeners.for_clients().next().context("find a listener for clients")?;
    let host = match listener.host.as_deref() {
        None | Some("0.0.0.0") => "127.0.0.1",
        Some("::") => "::1",
        Some(host) => host,
    };
    Ok(if host.contains(':') { format!("[{host}]:{}", listener.port) } else { format!("{host}:{}", listener.port) })
}

async fn ask(env: &Env, server: &str) -> Result<String> {
    let (host, port) = server.rsplit_once(':').context("find host:port")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().with_context(|| format!("understand the port {port}"))?;
    let mut broker = Peer::connect(env, host, port, "ottla-health", MAX_RESPONSE_BYTES).await?;
    let apis = broker.call(API_VERSIONS_VERSION, &ApiVersionsRequest::default()).await.context("ApiVersions")?;
    ensure!(apis.error_code == 0, "ApiVersions returns error {}", apis.error_code);
    let no_topics = MetadataRequest::default().with_topics(Some(Vec::new()));
    let metadata = broker.call(METADATA_VERSION, &no_topics).await.context("Metadata")?;
    ensure!(!metadata.brokers.is_empty(), "Metadata returns no broker");
    let cluster = metadata.cluster_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let (apis, brokers) = (apis.api_keys.len(), metadata.brokers.len());
    Ok(format!("{server} is healthy: cluster {cluster}, {brokers} broker(s), {apis} APIs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_first_client_listener_is_asked() {
        let server = |pairs: &[(&str, &str)]| {
            let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            server_of_settings(&Env::system(), &[], environment).expect("the environment is right")
        };
        assert_eq!(server(&[]), "127.0.0.1:9092");
        let listeners = "CONTROLLER://0.0.0.0:9093,PLAINTEXT://0.0.0.0:19092";
        assert_eq!(
            server(&[("KAFKA_LISTENERS", listeners), ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")]),
            "127.0.0.1:19092"
        );
        assert_eq!(server(&[("KAFKA_LISTENERS", "PLAINTEXT://[::]:1")]), "[::1]:1");
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_that_names_the_address() {
        let health = Health { bootstrap_server: Some("127.0.0.1:1".into()), config: Vec::new(), timeout_ms: 5000 };
        let error = check(&Env::system(), &health, []).await.expect_err("nobody listens on port 1");
        assert!(format!("{error:#}").starts_with("ask 127.0.0.1:1: cannot connect"), "{error:#}");
    }
}
