//! The messages between voters as bytes, in a bounded encoding of this broker's own: protobuf never parses bytes from a
//! socket.
//!
//! Owns the layout and its bounds: every length is checked against the bytes that follow, so a message takes no more
//! memory than a small multiple of its frame. Only messages that one voter sends to another can be encoded and decoded.
//! Leaves their meaning to raft-rs and their way to the transport.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

/// The first byte of each message.
const VERSION: u8 = 1;
/// The messages that voters send to each other. A message carries its position in this list.
const TYPES: [MessageType; 11] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgTimeoutNow,
    MessageType::MsgSnapStatus,
];
const ENTRY_TYPES: [EntryType; 3] = [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];
/// Bytes of an entry without its data: type, term, index, length.
const MIN_ENTRY_BYTES: usize = 1 + 8 + 8 + 4;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the message ends too early")]
    TooShort,
    #[error("{0} bytes follow the message")]
    TooLong(usize),
    #[error("version {0} is unknown")]
    Version(u8),
    #[error("type {0} is unknown")]
    Type(u8),
    #[error("{0} is neither true nor false")]
    Bool(u8),
}

/// Whether a message may be sent to another voter.
pub(super) fn is_sendable(message: &Message) -> bool {
    TYPES.contains(&message.msg_type)
}

/// Whether only a leader sends this message.
pub(super) fn is_from_leader(message: &Message) -> bool {
    matches!(message.msg_type, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot)
}

/// Whether a message responds to one of another voter.
pub(super) fn is_response(message: &Message) -> bool {
    is_vote(message)
        || matches!(
            message.msg_type,
            MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse | MessageType::MsgSnapStatus
        )
}

/// Whether a message is a vote for a candidate, or against it.
pub(super) fn is_vote(message: &Message) -> bool {
    matches!(message.msg_type, MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse)
}

/// Encodes a message for which [`is_sendable`] holds.
///
/// # Panics
/// For another message.
pub(super) fn encode(message: &Message) -> Bytes {
    let message_type = position(&TYPES, &message.msg_type);
    let entries: usize = message.entries.iter().map(|entry| MIN_ENTRY_BYTES + entry.data.len()).sum();
    let mut to = BytesMut::with_capacity(128 + message.context.len() + entries);
    to.put_u8(VERSION);
    to.put_u8(message_type);
    for number in [
        message.to,
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.request_snapshot,
        message.reject_hint,
    ] {
        to.put_u64(number);
    }
    to.put_i64(message.priority);
    to.put_u8(message.reject.into());
    put_bytes(&mut to, &message.context);
    to.put_u8(message.snapshot.is_some().into());
    if let Some(snapshot) = message.snapshot.as_ref() {
        let metadata = snapshot.get_metadata();
        to.put_u64(metadata.index);
        to.put_u64(metadata.term);
        put_ids(&mut to, &metadata.get_conf_state().voters);
        put_ids(&mut to, &metadata.get_conf_state().learners);
        put_bytes(&mut to, &snapshot.data);
    }
    to.put_u32(message.entries.len() as u32);
    for entry in message.entries.iter() {
        to.put_u8(position(&ENTRY_TYPES, &entry.entry_type));
        to.put_u64(entry.term);
        to.put_u64(entry.index);
        put_bytes(&mut to, &entry.data);
    }
    to.freeze()
}

fn position<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).expect("only known types are encoded") as u8
}

fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    to.put_u32(bytes.len() as u32);
    to.put_slice(bytes);
}

fn put_ids(to: &mut BytesMut, ids: &[u64]) {
    to.put_u32(ids.len() as u32);
    ids.iter().for_each(|id| to.put_u64(*id));
}

/// Decodes a message of another voter.
///
/// # Errors
/// The bytes are not exactly one message.
pub(super) fn decode(mut from: Bytes) -> Result<Message, MessageError> {
    let from = &mut from;
    let version = take_u8(from)?;
    if version != VERSION {
        return Err(MessageError::Version(version));
    }
    let mut message = Message { msg_type: take_type(from, &TYPES)?, ..Message::default() };
    for number in [
        &mut message.to,
        &mut message.from,
        &mut message.term,
        &mut message.log_term,
        &mut message.index,
        &mut message.commit,
        &mut message.commit_term,
        &mut message.request_snapshot,
        &mut message.reject_hint,
    ] {
        *number = take_u64(from)?;
    }
    message.priority = take_u64(from)? as i64;
    message.reject = take_bool(from)?;
    message.context = take_bytes(from)?;
    if take_bool(from)? {
        message.set_snapshot(take_snapshot(from)?);
    }
    let entries = take_u32(from)? as usize;
    if entries > from.len() / MIN_ENTRY_BYTES {
        return Err(MessageError::TooShort);
    }
    let entry = |from: &mut Bytes| {
        Ok(Entry {
            entry_type: take_type(from, &ENTRY_TYPES)?,
            term: take_u64(from)?,
            index: take_u64(from)?,
            data: take_bytes(from)?,
            ..Entry::default()
        })
    };
    message.entries = (0..entries).map(|_| entry(from)).collect::<Result<Vec<_>, _>>()?.into();
    if from.is_empty() { Ok(message) } else { Err(MessageError::TooLong(from.len())) }
}

fn take_snapshot(from: &mut Bytes) -> Result<Snapshot, MessageError> {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = take_u64(from)?;
    metadata.term = take_u64(from)?;
    let voters = take_ids(from)?;
    metadata.set_conf_state(ConfState { voters, learners: take_ids(from)?, ..ConfState::default() });
    snapshot.data = take_bytes(from)?;
    Ok(snapshot)
}

fn take_u8(from: &mut Bytes) -> Result<u8, MessageError> {
    from.try_get_u8().map_err(|_| MessageError::TooShort)
}

fn take_u32(from: &mut Bytes) -> Result<u32, MessageError> {
    from.try_get_u32().map_err(|_| MessageError::TooShort)
}

fn take_u64(from: &mut Bytes) -> Result<u64, MessageError> {
    from.try_get_u64().map_err(|_| MessageError::TooShort)
}

fn take_bool(from: &mut Bytes) -> Result<bool, MessageError> {
    match take_u8(from)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(MessageError::Bool(other)),
    }
}

fn take_type<T: Copy>(from: &mut Bytes, known: &[T]) -> Result<T, MessageError> {
    let number = take_u8(from)?;
    known.get(usize::from(number)).copied().ok_or(MessageError::Type(number))
}

fn take_bytes(from: &mut Bytes) -> Result<Bytes, MessageError> {
    let length = take_u32(from)? as usize;
    if length > from.len() { Err(MessageError::TooShort) } else { Ok(from.split_to(length)) }
}

fn take_ids(from: &mut Bytes) -> Result<Vec<u64>, MessageError> {
    let count = take_u32(from)? as usize;
    if count > from.len() / 8 {
        return Err(MessageError::TooShort);
    }
    (0..count).map(|_| take_u64(from)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (0..ENTRY_TYPES.len(), any::<u64>(), any::<u64>(), bytes()).prop_map(|(at, term, index, data)| Entry {
            entry_type: ENTRY_TYPES[at],
            term,
            index,
            data,
            ..Entry::default()
        })
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let ids = || proptest::collection::vec(any::<u64>(), 0..4);
        (any::<u64>(), any::<u64>(), ids(), ids(), bytes()).prop_map(|(index, term, voters, learners, data)| {
            let mut snapshot = Snapshot { data, ..Snapshot::default() };
            let metadata = snapshot.mut_metadata();
            (metadata.index, metadata.term) = (index, term);
            metadata.set_conf_state(ConfState { voters, learners, ..ConfState::default() });
            snapshot
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let numbers = any::<[u64; 9]>();
        let entries = proptest::collection::vec(entry(), 0..4);
        let rest = (any::<i64>(), any::<bool>(), bytes(), proptest::option::of(snapshot()), entries);
        (0..TYPES.len(), numbers, rest).prop_map(|(at, numbers, (priority, reject, context, snapshot, entries))| {
            let [to, from, term, log_term, index, commit, commit_term, request_snapshot, reject_hint] = numbers;
            let mut message = Message {
                msg_type: TYPES[at],
                to,
                from,
                term,
                log_term,
                index,
                commit,
                commit_term,
                request_snapshot,
                reject_hint,
                priority,
                reject,
                context,
                entries: entries.into(),
                ..Message::default()
            };
            if let Some(snapshot) = snapshot {
                message.set_snapshot(snapshot);
            }
            message
        })
    }

    proptest! {
        #[test]
        fn a_message_reads_back(message in message()) {
            prop_assert!(is_sendable(&message));
            prop_assert_eq!(decode(encode(&message)), Ok(message));
        }

        #[test]
        fn a_message_that_is_cut_or_longer_is_none(message in message()) {
            let whole = encode(&message);
            for end in 0..whole.len() {
                prop_assert!(decode(whole.slice(..end)).is_err());
            }
            let longer = [&whole[..], b"x"].concat();
            prop_assert_eq!(decode(longer.into()), Err(MessageError::TooLong(1)));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(message) = decode(bytes.clone().into()) {
                prop_assert_eq!(encode(&message), bytes);
            }
        }
    }

    #[test]
    fn a_message_from_a_client_of_the_leader_cannot_be_decoded() {
        assert!(!is_sendable(&Message { msg_type: MessageType::MsgPropose, ..Message::default() }));
        let mut bytes = encode(&Message { msg_type: MessageType::MsgAppend, ..Message::default() }).to_vec();
        bytes[1] = TYPES.len() as u8;
        assert_eq!(decode(bytes.into()), Err(MessageError::Type(TYPES.len() as u8)));
    }
}
