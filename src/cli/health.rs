//! `ottla health`: sends an ApiVersions and a Metadata request, as every client does at first.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, RequestHeader,
        ResponseHeader,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Health;
use crate::{
    config::{Arguments, Settings},
    env::{Env, net::Stream},
};

/// Larger responses are not read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
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
    let mut stream = connect(env, server).await?;
    let answer =
        round_trip(&mut *stream, ApiKey::ApiVersions, API_VERSIONS_VERSION, &ApiVersionsRequest::default()).await?;
    let apis = decode::<ApiVersionsResponse>(answer, ApiKey::ApiVersions, API_VERSIONS_VERSION)?;
    ensure!(apis.error_code == 0, "ApiVersions returns error {}", apis.error_code);
    let no_topics = MetadataRequest::default().with_topics(Some(Vec::new()));
    let answer = round_trip(&mut *stream, ApiKey::Metadata, METADATA_VERSION, &no_topics).await?;
    let metadata = decode::<MetadataResponse>(answer, ApiKey::Metadata, METADATA_VERSION)?;
    ensure!(!metadata.brokers.is_empty(), "Metadata returns no broker");
    let cluster = metadata.cluster_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let (apis, brokers) = (apis.api_keys.len(), metadata.brokers.len());
    Ok(format!("{server} is healthy: cluster {cluster}, {brokers} broker(s), {apis} APIs"))
}

async fn connect(env: &Env, server: &str) -> Result<Box<dyn Stream>> {
    let mut last = None;
    for address in resolve(server).await? {
        match env.net.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("connect"),
        None => bail!("the name has no address"),
    }
}

async fn resolve(server: &str) -> Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(server).await.context("resolve host:port")?.collect())
}

async fn round_trip(stream: &mut dyn Stream, key: ApiKey, version: i16, request: &impl Encodable) -> Result<Bytes> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(i32::from(key as i16))
        .with_client_id(Some(StrBytes::from_static_str("ottla-health")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, key.request_header_version(version)).context("encode the header")?;
    request.encode(&mut frame, version).context("encode the request")?;
    let length = u32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).await.context("send a request")?;

    let length = stream.read_u32().await.context("wait for an answer")? as usize;
    ensure!(length <= MAX_ANSWER_BYTES, "an answer of {length} bytes is too large for a broker");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.context("read an answer")?;
    Ok(answer.into())
}

fn decode<R: Decodable>(mut answer: Bytes, key: ApiKey, version: i16) -> Result<R> {
    let header =
        ResponseHeader::decode(&mut answer, key.response_header_version(version)).context("decode the header")?;
    ensure!(header.correlation_id == i32::from(key as i16), "the answer belongs to another request");
    R::decode(&mut answer, version).context("decode the answer")
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
        assert!(format!("{error:#}").starts_with("ask 127.0.0.1:1: connect"), "{error:#}");
    }
}
