//! Encodings of arbitrary values: they come back as they were, keys keep their order, and no bytes make a decoder
//! panic.

use std::ops::Bound;

use nora_cluster::codec;
use nora_domain::{
    Action, Command, Digest, Epoch, Format, Head, Holder, Item, Key, NodeId, NodeProfile, Origin,
    Rate, Record, RepositoryKey, StartNode, Target, TenantName, Terms, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::samples::{All, Draw, Drawn};

proptest! {
    #[test]
    fn keys_come_back(seed in any::<u64>()) {
        for key in Key::all(Draw(seed)) {
            prop_assert_eq!(codec::key::decode(&codec::key::encode(&key)).unwrap(), key);
        }
    }

    #[test]
    fn keys_keep_their_order(seed in any::<u64>()) {
        // Short names over few letters make neighbours of many, in two tenants at most three letters long.
        let mut keys = Key::all(Draw(seed));
        keys.extend(Key::all(Draw(seed).of("more")));
        keys.extend(Key::all(Draw(seed).of("yet more")));
        let mut bytes: Vec<_> = keys.iter().map(codec::key::encode).collect();
        keys.sort();
        bytes.sort();
        prop_assert_eq!(bytes, keys.iter().map(codec::key::encode).collect::<Vec<_>>());
    }

    #[test]
    fn keys_of_one_kind_keep_their_order(seed in any::<u64>()) {
        let (one, other) = (Key::all(Draw(seed)), Key::all(Draw(seed).of("other")));
        for (a, b) in one.iter().zip(&other) {
            prop_assert_eq!(codec::key::encode(a).cmp(&codec::key::encode(b)), a.cmp(b));
        }
    }

    #[test]
    fn keys_that_differ_in_their_last_part_keep_their_order(seed in any::<u64>()) {
        let (d, more) = (Draw(seed), Draw(seed).of("more"));
        let (repository, blob): (RepositoryKey, Digest) = d.get("place");
        let mut keys = Vec::new();
        for holder in Holder::all(d).into_iter().chain(Holder::all(more)) {
            keys.push(Key::Edge(repository.clone(), blob, holder));
        }
        for item in Item::all(d).into_iter().chain(Item::all(more)) {
            keys.push(Key::Pulled(repository.clone(), item));
        }
        for target in Target::all(d).into_iter().chain(Target::all(more)) {
            keys.push(Key::TagOf(repository.clone(), target, d.get("tag")));
        }
        for format in Format::all(d) {
            keys.push(Key::Repository(RepositoryKey { format, ..repository.clone() }));
        }
        for rate in Rate::all(d) {
            keys.push(Key::Budget(repository.tenant.clone(), rate));
        }
        for (a, b) in keys.iter().flat_map(|a| keys.iter().map(move |b| (a, b))) {
            prop_assert_eq!(codec::key::encode(a).cmp(&codec::key::encode(b)), a.cmp(b));
        }
    }

    #[test]
    fn a_tenant_is_one_range(seed in any::<u64>()) {
        let tenant: TenantName = Draw(seed).get("tenant");
        // The byte before every tenant's rows; the name ends with a zero, so a one in its place is past all its rows.
        let of = |end| [&[codec::key::TENANTS], tenant.as_str().as_bytes(), &[end]].concat();
        let (start, end) = (of(0), of(1));
        for key in Key::all(Draw(seed).of("keys")).into_iter().chain([Key::Usage(tenant.clone())]) {
            let range = (Bound::Included(start.clone()), Bound::Excluded(end.clone()));
            let inside = std::ops::RangeBounds::contains(&range, &codec::key::encode(&key));
            prop_assert_eq!(inside, key.tenant() == Some(&tenant), "{:?}", key);
        }
    }

    #[test]
    fn a_bound_holds_its_table_and_no_other(seed in any::<u64>()) {
        let same = |a: &Key, b: &Key| {
            std::mem::discriminant(a) == std::mem::discriminant(b) && a.tenant() == b.tenant()
        };
        let (starts, keys) = (Key::all(Draw(seed)), Key::all(Draw(seed).of("others")));
        for start in &starts {
            let bytes = codec::key::encode(start);
            let bound = codec::key::upper_bound(&bytes);
            prop_assert!(bytes < bound);
            for key in starts.iter().chain(&keys).filter(|key| *key >= start) {
                let inside = codec::key::encode(key) < bound;
                prop_assert_eq!(inside, same(start, key), "{:?} from {:?}", key, start);
            }
        }
    }

    #[test]
    fn commands_come_back(seed in any::<u64>()) {
        let d = Draw(seed);
        for action in Action::all(d) {
            let command = Command { action, ..d.get("around") };
            let bytes = codec::command::encode(&command);
            prop_assert_eq!(codec::command::decode(command.at, &bytes[..]).unwrap(), command);
        }
    }

    #[test]
    fn records_come_back(seed in any::<u64>()) {
        for record in Record::all(Draw(seed)) {
            let bytes = codec::record::encode(&record);
            prop_assert_eq!(codec::record::decode(&bytes).unwrap(), record);
        }
    }

    #[test]
    fn heads_and_segments_come_back(seed in any::<u64>(), first in any::<u32>(), count in 0..40_u64) {
        let head = Head::draw(Draw(seed));
        prop_assert_eq!(codec::head::decode(&codec::head::encode(&head)).unwrap(), head);
        let first = u64::from(first);
        let entries: Vec<_> = (first..first + count).map(|n| (n, Draw(seed ^ n).get("e"))).collect();
        let bytes = codec::journal::encode_segment(&entries);
        prop_assert_eq!(codec::journal::decode_segment(&bytes).unwrap(), entries);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_understood(bytes in vec(any::<u8>(), 0..128)) {
        understood_or_refused(&bytes);
    }

    #[test]
    fn damaged_bytes_are_refused_or_understood(
        seed in any::<u64>(),
        cut in any::<u16>(),
        at in any::<u16>(),
        to in any::<u8>(),
    ) {
        let d = Draw(seed);
        let command: Command = d.get("command");
        let segment = codec::journal::encode_segment(&[(1, d.get("entry"))]);
        for mut bytes in [
            codec::command::encode(&command),
            codec::record::encode(&d.get("record")),
            codec::key::encode(&d.get("key")),
            codec::head::encode(&d.get("head")),
            segment,
        ] {
            understood_or_refused(&bytes[..usize::from(cut) % bytes.len()]);
            let at = usize::from(at) % bytes.len();
            bytes[at] = to;
            understood_or_refused(&bytes);
        }
    }

    #[test]
    fn a_key_cut_short_or_made_longer_is_refused(seed in any::<u64>(), cut in 0..64_usize) {
        for key in Key::all(Draw(seed)) {
            let bytes = codec::key::encode(&key);
            let cut = cut.min(bytes.len() - 1);
            prop_assert!(codec::key::decode(&bytes[..cut]).is_err());
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert!(codec::key::decode(&longer).is_err());
        }
    }
}

/// What a decoder makes of any bytes is either an error or a value that comes back as itself.
fn understood_or_refused(bytes: &[u8]) {
    if let Ok(key) = codec::key::decode(bytes) {
        assert_eq!(codec::key::encode(&key), bytes);
    }
    if let Ok(command) = codec::command::decode(Timestamp(1), bytes) {
        let again = codec::command::encode(&command);
        assert_eq!(codec::command::decode(Timestamp(1), &again[..]).unwrap(), command);
    }
    if let Ok(record) = codec::record::decode(bytes) {
        assert_eq!(codec::record::decode(&codec::record::encode(&record)).unwrap(), record);
    }
    if let Ok(head) = codec::head::decode(bytes) {
        assert_eq!(codec::head::decode(&codec::head::encode(&head)).unwrap(), head);
    }
    if let Ok(entries) = codec::journal::decode_segment(bytes) {
        let again = codec::journal::encode_segment(&entries);
        assert_eq!(codec::journal::decode_segment(&again).unwrap(), entries);
    }
}

#[test]
fn a_segment_that_claims_too_much_is_refused_before_it_is_unpacked() {
    let mut bytes = codec::journal::encode_segment(&[(1, Draw(1).get("entry"))]);
    assert!(codec::journal::decode_segment(&bytes).is_ok());
    for claim in [u32::MAX, 255 << 20, 1 << 20] {
        bytes[5..9].copy_from_slice(&claim.to_be_bytes());
        let refused = codec::journal::decode_segment(&bytes).unwrap_err();
        assert!(refused.to_string().contains("larger than it can be"), "{refused}");
    }
    bytes[4] = 2;
    let refused = codec::journal::decode_segment(&bytes).unwrap_err();
    assert!(refused.to_string().contains("version"), "{refused}");
}

#[test]
fn the_leader_gives_an_encoded_command_its_time_and_the_proposer_its_origin() {
    let action =
        StartNode { node: NodeId(2), start: 5, replaces: 4, profile: NodeProfile::default() }
            .into();
    let ahead = Command { at: Timestamp(u64::MAX), origin: None, terms: Terms::NONE, action };
    let origin = Origin { epoch: Epoch(3), serial: 0, settled_below: 0 };
    let mut bytes = codec::command::encode(&ahead);
    codec::command::append_origin(&mut bytes, origin);
    for at in [0, 1, 1_700_000_000_000] {
        let expected = Command { at: Timestamp(at), origin: Some(origin), ..ahead.clone() };
        assert_eq!(codec::command::decode(Timestamp(at), &bytes[..]).unwrap(), expected);
    }
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    // A command whose action has the field number 200, which this version gives to none: key 1602, length 0.
    let future = [0xc2, 0x0c, 0x00];
    let refused = codec::command::decode(Timestamp(1), &future[..]).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("command.action")), "{refused:?}");
    let refused = codec::record::decode(&future).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("record.kind")), "{refused:?}");
    let refused = codec::key::decode(&[0x7f]).unwrap_err();
    assert!(matches!(refused, codec::DecodeError::Unknown("key.table")), "{refused:?}");
}
