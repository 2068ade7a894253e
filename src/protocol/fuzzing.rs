//! The functions of the fuzz targets in `fuzz/`. They are here so that an ordinary test can replay their seeds. Each
//! accepts any bytes and must neither panic nor use too much memory for its input; some also compare two decoders.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages,
    protocol::{Decodable, Encodable, Message, VersionRange},
};

use super::{
    add_raft_voter::AddRaftVoterRequest,
    compression::{OpenLimits, decompress, open},
    describe_log_dirs::DescribeLogDirsRequest,
    fetch::FetchRequest,
    frame::FrameReader,
    guard::{GuardError, check_request},
    header::RequestHeader,
    list_offsets::ListOffsetsRequest,
    offset_commit::OffsetCommitRequest,
    offset_fetch::OffsetFetchRequest,
    produce::ProduceRequest,
    record_batch::{BatchBuilder, BatchOptions, Compression, RecordIter, RecordWalk, iter_batches},
    wire::DecodeError,
};

/// Runs a target on any bytes.
pub type Target = fn(&[u8]);

/// The name of each target, which is also its directory in `fuzz/seeds`, and its function.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("header", header),
    ("request", request),
    ("own_codec", own_codec),
    ("record_batch", record_batch),
    ("decompress", decompress_block),
];

/// The first byte is the number of bytes that arrive at a time, minus 1.
pub fn frame(data: &[u8]) {
    const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
    let Some((step, mut rest)) = data.split_first() else { return };
    let mut reader = FrameReader::new(MAX_FRAME_BYTES);
    let mut framed_bytes = 0;
    loop {
        match reader.take_frame() {
            Ok(Some(frame)) => framed_bytes += 4 + frame.len(),
            Err(_) => break,
            Ok(None) if rest.is_empty() => break,
            Ok(None) => {
                let space = reader.space_to_read().expect("the length was checked a moment ago");
                let room = space.capacity() - space.len();
                assert!(room > 0 && space.capacity() <= MAX_FRAME_BYTES + 64 * 1024 + 4 * space.len());
                let (now, later) = rest.split_at(room.min(usize::from(*step) + 1).min(rest.len()));
                space.extend_from_slice(now);
                rest = later;
            }
        }
    }
    assert!(framed_bytes < data.len());
}

/// The first byte is odd if the version is flexible.
pub fn header(data: &[u8]) {
    let Some((flexible, frame)) = data.split_first() else { return };
    if let Ok((header, body)) = RequestHeader::parse(Bytes::copy_from_slice(frame), flexible & 1 == 1) {
        assert!(body.len() + 10 <= frame.len());
        assert!(header.client_id.len() <= 3 * frame.len());
    }
}

/// The data are key and version, one byte each, then the body. A body that passes the guard must decode without harm,
/// and the decoded message, encoded again, must pass the guard again.
pub fn request(data: &[u8]) {
    let [key, version, body @ ..] = data else { return };
    let (key, version) = (i16::from(*key), i16::from(*version));
    if check_request(key, version, body).is_err() {
        return;
    }
    let Some(api) =
        APIS.iter().find(|api| api.key == key && api.versions.min <= version && version <= api.versions.max)
    else {
        return;
    };
    if let Ok((_, again)) = (api.decode)(version, Bytes::copy_from_slice(body)) {
        assert!(check_request(key, version, &again).is_ok());
    }
}

/// As [`request`], for the keys with our own codec. A body that our codec accepts must pass the guard, except that the
/// two estimate memory differently. A decoded Fetch must stay the same after it is encoded and decoded again.
pub fn own_codec(data: &[u8]) {
    let [key, version, body @ ..] = data else { return };
    let (key, version, bytes) = (i16::from(*key), i16::from(*version), Bytes::copy_from_slice(body));
    let decoded = match key {
        0 => ProduceRequest::decode(version, bytes).map(drop),
        1 => FetchRequest::decode(version, bytes).map(|request| {
            assert_eq!(FetchRequest::decode(version, request.encode(version)), Ok(request));
        }),
        2 => ListOffsetsRequest::decode(version, bytes).map(drop),
        8 => OffsetCommitRequest::decode(version, bytes).map(drop),
        9 => OffsetFetchRequest::decode(version, bytes).map(drop),
        35 => DescribeLogDirsRequest::decode(version, bytes).map(drop),
        80 => AddRaftVoterRequest::decode(version, bytes).map(drop),
        _ => return,
    };
    match (decoded, check_request(key, version, body)) {
        (Ok(()), Err(GuardError::Field { error: DecodeError::TooLarge, .. })) => {}
        (Ok(()), Err(error)) => panic!("accepted by our codec, refused by the guard: {error}"),
        // The guard does not check that strings are UTF-8.
        (Err(error), Ok(_)) => assert!(
            matches!(error, DecodeError::Utf8 | DecodeError::TooLarge),
            "passed by the guard, refused by our codec: {error}"
        ),
        _ => {}
    }
}

/// The data are batches, one after the other. Reads them and their records.
pub fn record_batch(data: &[u8]) {
    for batch in iter_batches(data) {
        batch.crc_is_valid();
        let _ = (batch.last_offset(), batch.last_sequence(), batch.max_timestamp(), batch.producer_id());
        let plain = match batch.compression() {
            Ok(Compression::None) => Bytes::copy_from_slice(batch.records_bytes()),
            Ok(codec) => match decompress(codec, batch.records_bytes(), MAX_RECORDS_BYTES) {
                Ok(plain) => plain,
                Err(_) => continue,
            },
            Err(_) => continue,
        };
        let readable = RecordIter::new(&plain, batch.record_count()).map_while(Result::ok).count();
        if let Ok(opened) = batch.compression().map(|codec| open(codec, batch.records_bytes(), OpenLimits::STORED)) {
            let walk = RecordWalk::new(opened.expect("the same bytes were decompressed before"), batch.record_count());
            assert_eq!(
                walk.map_while(Result::ok).count(),
                readable,
                "RecordWalk and RecordIter must find the same records"
            );
        }
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for record in RecordIter::new(&plain, batch.record_count()) {
            let Ok(record) = record else { break };
            let headers: Vec<_> = record.headers().collect();
            builder.append(0, record.key, record.value, &headers);
        }
    }
}

const MAX_RECORDS_BYTES: usize = 1024 * 1024;

/// The first byte selects the codec.
pub fn decompress_block(data: &[u8]) {
    let Some((codec, block)) = data.split_first() else { return };
    let Ok(codec) = Compression::from_id((codec % 5) as i8) else { return };
    if let Ok(plain) = decompress(codec, block, MAX_RECORDS_BYTES) {
        assert!(plain.len() <= MAX_RECORDS_BYTES);
    }
}

/// The result of decoding a body with `kafka-protocol`: the number of bytes left, and the message encoded again.
pub(super) type Decoded = anyhow::Result<(usize, BytesMut)>;

/// A request of `kafka-protocol`.
pub(super) struct Api {
    pub(super) key: i16,
    pub(super) versions: VersionRange,
    #[cfg(test)]
    pub(super) default: fn(i16) -> anyhow::Result<BytesMut>,
    pub(super) decode: fn(i16, Bytes) -> Decoded,
}

macro_rules! apis {
    ($($key:literal $request:ident,)*) => {
        pub(super) const APIS: &[Api] = &[$(Api {
            key: $key,
            versions: messages::$request::VERSIONS,
            #[cfg(test)]
            default: |version| {
                let mut bytes = BytesMut::new();
                messages::$request::default().encode(&mut bytes, version)?;
                Ok(bytes)
            },
            decode: |version, mut body| {
                let request = messages::$request::decode(&mut body, version)?;
                let mut again = BytesMut::new();
                request.encode(&mut again, version)?;
                Ok((body.len(), again))
            },
        },)*];
    };
}

apis! {
    0 ProduceRequest, 1 FetchRequest, 2 ListOffsetsRequest, 3 MetadataRequest, 8 OffsetCommitRequest, 9 OffsetFetchRequest,
    10 FindCoordinatorRequest, 11 JoinGroupRequest, 12 HeartbeatRequest, 13 LeaveGroupRequest, 14 SyncGroupRequest,
    15 DescribeGroupsRequest, 16 ListGroupsRequest, 17 SaslHandshakeRequest, 18 ApiVersionsRequest, 19 CreateTopicsRequest,
    20 DeleteTopicsRequest, 21 DeleteRecordsRequest, 22 InitProducerIdRequest, 23 OffsetForLeaderEpochRequest,
    24 AddPartitionsToTxnRequest, 25 AddOffsetsToTxnRequest, 26 EndTxnRequest, 27 WriteTxnMarkersRequest,
    28 TxnOffsetCommitRequest, 29 DescribeAclsRequest, 30 CreateAclsRequest, 31 DeleteAclsRequest, 32 DescribeConfigsRequest,
    33 AlterConfigsRequest, 34 AlterReplicaLogDirsRequest, 35 DescribeLogDirsRequest, 36 SaslAuthenticateRequest,
    37 CreatePartitionsRequest, 38 CreateDelegationTokenRequest, 39 RenewDelegationTokenRequest,
    40 ExpireDelegationTokenRequest, 41 DescribeDelegationTokenRequest, 42 DeleteGroupsRequest, 43 ElectLeadersRequest,
    44 IncrementalAlterConfigsRequest, 45 AlterPartitionReassignmentsRequest, 46 ListPartitionReassignmentsRequest,
    47 OffsetDeleteRequest, 48 DescribeClientQuotasRequest, 49 AlterClientQuotasRequest,
    50 DescribeUserScramCredentialsRequest, 51 AlterUserScramCredentialsRequest, 52 VoteRequest, 53 BeginQuorumEpochRequest,
    54 EndQuorumEpochRequest, 55 DescribeQuorumRequest, 56 AlterPartitionRequest, 57 UpdateFeaturesRequest,
    58 EnvelopeRequest, 59 FetchSnapshotRequest, 60 DescribeClusterRequest, 61 DescribeProducersRequest,
    62 BrokerRegistrationRequest, 63 BrokerHeartbeatRequest, 64 UnregisterBrokerRequest, 65 DescribeTransactionsRequest,
    66 ListTransactionsRequest, 67 AllocateProducerIdsRequest, 68 ConsumerGroupHeartbeatRequest,
    69 ConsumerGroupDescribeRequest, 70 ControllerRegistrationRequest, 71 GetTelemetrySubscriptionsRequest,
    72 PushTelemetryRequest, 73 AssignReplicasToDirsRequest, 74 ListConfigResourcesRequest,
    75 DescribeTopicPartitionsRequest, 76 ShareGroupHeartbeatRequest, 77 ShareGroupDescribeRequest, 78 ShareFetchRequest,
    79 ShareAcknowledgeRequest, 80 AddRaftVoterRequest, 81 RemoveRaftVoterRequest, 82 UpdateRaftVoterRequest,
    83 InitializeShareGroupStateRequest, 84 ReadShareGroupStateRequest, 85 WriteShareGroupStateRequest,
    86 DeleteShareGroupStateRequest, 87 ReadShareGroupStateSummaryRequest, 90 DescribeShareGroupOffsetsRequest,
    91 AlterShareGroupOffsetsRequest, 92 DeleteShareGroupOffsetsRequest,
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// If fuzzing finds a crash, its input is added to `fuzz/seeds/<target>`.
    #[test]
    fn seeds_run_without_harm() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (target, run) in TARGETS {
            let mut files = 0;
            for entry in fs::read_dir(seeds.join(target)).unwrap() {
                run(&fs::read(entry.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files >= 3, "{target} has {files} seeds");
        }
    }

    #[test]
    fn every_target_is_built_by_cargo_fuzz() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for (target, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(fuzz.join(format!("targets/{target}.rs")).exists(), "{target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_run_without_harm(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            for (_, run) in TARGETS {
                run(&data);
            }
        }

        /// Lengths and counts are small, so that most of the bytes are decoded.
        #[test]
        fn plausible_bytes_run_without_harm(key in 0..93_u8, version in 0..19_u8, data in proptest::collection::vec(0..6_u8, 0..300)) {
            let data = [&[key, version][..], &data].concat();
            request(&data);
            for key in [0, 1, 2, 8, 9, 35] {
                own_codec(&[&[key], &data[1..]].concat());
            }
        }
    }
}
