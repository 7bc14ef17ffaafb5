//! Encodings of arbitrary values: they come back as they were, keys keep their order, and no bytes make a decoder
//! panic.

use nora_cluster::codec;
use nora_domain::command::{Action, Command, Origin, Terms};
use nora_domain::record::{
    ArtifactRecord, Body, Epoch, Generation, Key, NodeId, NodeProfile, Placement, Record,
    Timestamp, TokenId, UploadId,
};
use nora_domain::{Digest, Format, MediaType, RepositoryKey, RepositoryPath, TagName, TenantName};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// Short names over few letters, so that names which start others, and equal names, come up often.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab/ -]{1,3}", 1 => "[a-z0-9éß/~\u{10ffff}]{1,20}"]
}

fn digest() -> impl Strategy<Value = Digest> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()];
    (any::<bool>(), byte, any::<bool>()).prop_map(|(long, byte, last)| {
        let mut value = [byte; 64];
        value[31] = value[31].wrapping_add(last.into());
        if long { Digest::sha512(value) } else { Digest::sha256(value[..32].try_into().unwrap()) }
    })
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Oci),
        Just(Format::Npm),
        Just(Format::Pypi),
        Just(Format::Maven),
        Just(Format::Cargo)
    ]
}

fn repository() -> impl Strategy<Value = RepositoryKey> {
    (text(), format(), text()).prop_map(|(tenant, format, path)| RepositoryKey {
        tenant: TenantName::parse(&tenant).unwrap(),
        format,
        path: RepositoryPath::parse(&path).unwrap(),
    })
}

fn tag() -> impl Strategy<Value = TagName> {
    text().prop_map(|text| TagName::parse(&text).unwrap())
}

fn media_type() -> impl Strategy<Value = MediaType> {
    text().prop_map(|text| MediaType::parse(&text).unwrap())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, Just(255), Just(256), any::<u64>()]
}

fn upload() -> impl Strategy<Value = UploadId> {
    prop_oneof![Just(0), Just(u128::MAX), any::<u128>()].prop_map(UploadId)
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Cluster),
        number().prop_map(|node| Key::Node(NodeId(node))),
        text().prop_map(|tenant| Key::Usage(TenantName::parse(&tenant).unwrap())),
        repository().prop_map(Key::Repository),
        (repository(), digest()).prop_map(|(r, d)| Key::Artifact(r, d)),
        (repository(), tag()).prop_map(|(r, t)| Key::Tag(r, t)),
        (repository(), digest(), tag()).prop_map(|(r, d, t)| Key::TagOf(r, d, t)),
        (repository(), digest()).prop_map(|(r, d)| Key::Link(d, r)),
        (repository(), digest(), digest()).prop_map(|(r, s, d)| Key::Referrer(r, s, d)),
        digest().prop_map(Key::Blob),
        (digest(), repository(), digest()).prop_map(|(b, r, d)| Key::Edge(b, r, d)),
        (digest(), upload()).prop_map(|(b, u)| Key::Pin(b, u)),
        upload().prop_map(Key::Upload),
        number().prop_map(|epoch| Key::Session(Epoch(epoch))),
        upload().prop_map(|token| Key::JoinToken(TokenId(token.0))),
        Just(Key::Authority),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![Just(Body::Blob), vec(any::<u8>(), 0..64).prop_map(Body::Inline)]
}

fn artifact() -> impl Strategy<Value = ArtifactRecord> {
    (
        media_type(),
        number(),
        body(),
        proptest::option::of(digest()),
        proptest::option::of(media_type()),
        vec(digest(), 0..4),
        vec(digest(), 0..4),
        number(),
    )
        .prop_map(|(media_type, size, body, subject, artifact_type, blobs, children, at)| {
            ArtifactRecord {
                media_type,
                size,
                body,
                subject,
                artifact_type,
                blobs,
                children,
                pushed_at: Timestamp(at),
            }
        })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (repository(), digest(), artifact(), vec(tag(), 0..3)).prop_map(
            |(repository, digest, artifact, tags)| Action::PutArtifact {
                repository,
                digest,
                media_type: artifact.media_type,
                size: artifact.size,
                body: artifact.body,
                subject: artifact.subject,
                artifact_type: artifact.artifact_type,
                blobs: artifact.blobs,
                children: artifact.children,
                tags,
            }
        ),
        (repository(), digest(), number(), number(), upload(), vec(any::<u8>(), 32)).prop_map(
            |(repository, digest, size, number, upload, root)| {
                Action::CommitBlob {
                    repository,
                    digest,
                    size,
                    generation: Generation { epoch: Epoch(number), sequence: size },
                    node: NodeId(number),
                    chunk_root: root.try_into().unwrap(),
                    upload,
                    pinned_until: Timestamp(number),
                    placement: match number % 3 {
                        0 => Placement::Object(upload),
                        1 => Placement::Nodes(vec![]),
                        _ => Placement::Nodes(vec![NodeId(size), NodeId(number)]),
                    },
                }
            }
        ),
        (repository(), repository(), digest(), upload(), number()).prop_map(
            |(from, to, digest, pin, until)| Action::MountBlob {
                from,
                to,
                digest,
                pin,
                pinned_until: Timestamp(until),
            }
        ),
        (repository(), tag()).prop_map(|(repository, tag)| Action::DeleteTag { repository, tag }),
    ]
}

proptest! {
    #[test]
    fn keys_come_back(key in key()) {
        prop_assert_eq!(codec::key::decode(&codec::key::encode(&key)).unwrap(), key);
    }

    #[test]
    fn keys_keep_their_order(a in key(), b in key()) {
        prop_assert_eq!(codec::key::encode(&a).cmp(&codec::key::encode(&b)), a.cmp(&b));
    }

    #[test]
    fn commands_come_back(at in number(), serial in proptest::option::of(number()), action in action()) {
        let origin = serial.map(|serial| Origin { epoch: Epoch(at), serial, settled_below: at });
        let command = Command { at: Timestamp(at), origin, terms: Terms::NONE, action };
        prop_assert_eq!(codec::command::decode(&codec::command::encode(&command)).unwrap(), command);
    }

    #[test]
    fn artifacts_come_back(artifact in artifact()) {
        let record = Record::Artifact(artifact);
        prop_assert_eq!(codec::record::decode(&codec::record::encode(&record)).unwrap(), record);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_understood(bytes in vec(any::<u8>(), 0..128)) {
        // What a decoder makes of them is either an error or a value that comes back as itself.
        if let Ok(key) = codec::key::decode(&bytes) {
            prop_assert_eq!(codec::key::encode(&key), bytes.clone());
        }
        if let Ok(command) = codec::command::decode(&bytes) {
            prop_assert_eq!(
                codec::command::decode(&codec::command::encode(&command)).unwrap(),
                command
            );
        }
        if let Ok(record) = codec::record::decode(&bytes) {
            prop_assert_eq!(
                codec::record::decode(&codec::record::encode(&record)).unwrap(),
                record
            );
        }
        prop_assert!(codec::raft::decode_manifest(&bytes).is_err() || bytes.len() >= 2);
    }

    #[test]
    fn a_key_cut_short_or_made_longer_is_refused(key in key(), cut in 0..64_usize) {
        let bytes = codec::key::encode(&key);
        let cut = cut.min(bytes.len() - 1);
        prop_assert!(codec::key::decode(&bytes[..cut]).is_err());
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert!(codec::key::decode(&longer).is_err());
    }
}

#[test]
fn the_leader_stamps_its_time_and_the_proposer_its_origin_onto_encoded_commands() {
    let action = Action::StartNode { node: NodeId(2), start: 5, profile: NodeProfile::default() };
    let ahead = Command { at: Timestamp(u64::MAX), origin: None, terms: Terms::NONE, action };
    let origin = Origin { epoch: Epoch(3), serial: 0, settled_below: 0 };
    let mut bytes = codec::command::encode(&ahead);
    codec::command::append_origin(&mut bytes, origin);
    for at in [0, 1, 1_700_000_000_000] {
        let stamped = codec::command::stamp(&bytes, Timestamp(at));
        let expected = Command { at: Timestamp(at), origin: Some(origin), ..ahead.clone() };
        assert_eq!(codec::command::decode(&stamped).unwrap(), expected);
    }
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    // A command whose action has the field number 200, which this version gives to none: key 1602, length 0.
    let future = [0x08, 0x01, 0xc2, 0x0c, 0x00];
    let refused = codec::command::decode(&future).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("command.action")), "{refused:?}");
    let refused = codec::record::decode(&future[2..]).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("record.kind")), "{refused:?}");
    let refused = codec::key::decode(&[0xff]).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("key.table")), "{refused:?}");
}
