//! Credentials: whatever way a client has of sending a token, the same token arrives; what cannot be read is nobody.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nora_auth::credential::{ApiToken, Credential, Scheme, Secret, TokenKind, read, read_all};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

fn token(kind: TokenKind) -> ApiToken {
    ApiToken::generate(kind, std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(200)))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn shown(header: &str, scheme: Scheme) -> Credential {
    read(Some(header.as_bytes()), scheme)
}

fn bearer(text: &str) -> Credential {
    Credential::Bearer(Secret::new(text))
}

#[test]
fn every_clients_way_of_sending_a_token_gives_the_same_credential() {
    let session = "nora_st_e30.e30.AAAA".to_owned();
    for text in [token(TokenKind::Personal).reveal(), token(TokenKind::Workload).reveal(), session]
    {
        let guid = "00000000-0000-0000-0000-000000000000";
        for (scheme, header) in [
            (Scheme::Basic, basic(&format!("alice:{text}"))),
            (Scheme::Basic, basic(&format!(":{text}"))),
            (Scheme::Bearer, format!("Bearer {text}")),
            (Scheme::Bearer, format!("  bearer   {text} ")),
            (Scheme::Docker, basic(&format!("alice:{text}"))),
            (Scheme::Docker, basic(&format!("<token>:{text}"))),
            (Scheme::Docker, basic(&format!("{guid}:{text}"))),
            (Scheme::Docker, format!("Bearer {text}")),
            (Scheme::Npm, format!("Bearer {text}")),
            (Scheme::Npm, basic(&format!("_:{text}"))),
            (Scheme::Npm, basic(&format!("alice:{text}")).trim_end_matches('=').to_owned()),
            (Scheme::Cargo, text.clone()),
            (Scheme::Cargo, format!("Bearer {text}")),
            (Scheme::Cargo, basic(&format!("alice:{text}"))),
            (Scheme::Pypi, basic(&format!("__token__:{text}"))),
            (Scheme::Pypi, basic(&format!("alice:{text}"))),
            (Scheme::Maven, basic(&format!("whoever:{text}"))),
            (Scheme::Maven, format!("BEARER {text}")),
        ] {
            assert_eq!(shown(&header, scheme), bearer(&text), "{scheme:?} {header}");
        }
    }
}

#[test]
fn a_password_stays_a_password() {
    let damaged = format!("{}x", token(TokenKind::Personal).reveal());
    for password in ["secret", "", "with:colons:in it", "pässwörd", "nora_pat_", &damaged] {
        let expected = Credential::Basic { user: "alice".into(), password: Secret::new(password) };
        for scheme in Scheme::ALL.into_iter().filter(|scheme| *scheme != Scheme::Bearer) {
            let found = shown(&basic(&format!("alice:{password}")), scheme);
            assert_eq!(found, expected, "{scheme:?} {password}");
        }
    }
    // Who says that it is a token gets it looked for as a token, of whatever issuer.
    assert_eq!(shown(&basic("__token__:pypi-AgEI"), Scheme::Pypi), bearer("pypi-AgEI"));
    assert_eq!(shown(&basic("<token>:opaque"), Scheme::Docker), bearer("opaque"));
    // In another ecosystem the name is a name.
    assert!(matches!(shown(&basic("__token__:x"), Scheme::Npm), Credential::Basic { .. }));
}

#[test]
fn nothing_shown_is_not_the_same_as_something_unreadable() {
    for scheme in Scheme::ALL {
        assert_eq!(read(None, scheme), Credential::None);
        assert_eq!(read_all([], scheme), Credential::None);
        let two: [&[u8]; 2] = [b"Bearer abc", b"Bearer abc"];
        assert!(matches!(read_all(two, scheme), Credential::Malformed(_)), "{scheme:?}");
    }
    assert_eq!(read_all([b"Bearer abc".as_slice()], Scheme::Npm), bearer("abc"));
}

#[test]
fn headers_that_cannot_be_read_are_refused_with_their_reason() {
    let long = format!("Bearer {}", "a".repeat(16 * 1024));
    let control = basic("alice:a\nb");
    let nul = basic("alice:a\0b");
    let long_user = basic(&format!("{}:x", "u".repeat(257)));
    let latin1 = format!("Basic {}", STANDARD.encode(b"al\xefce:x"));
    let no_colon = basic("alice");
    let cases: [(&[u8], Scheme, &str); 27] = [
        (b"", Scheme::Docker, "is empty"),
        (b"   ", Scheme::Docker, "is empty"),
        (long.as_bytes(), Scheme::Docker, "16 KiB"),
        (b"Bearer \xc3\xa4", Scheme::Docker, "ASCII"),
        (b"Bearer \xff", Scheme::Docker, "ASCII"),
        (b"Bearer a\tb", Scheme::Docker, "ASCII"),
        (b"Bearer a\nb", Scheme::Docker, "ASCII"),
        (b"Bearer a\0", Scheme::Docker, "ASCII"),
        (b"Bearer", Scheme::Docker, "empty"),
        (b"Bearer ", Scheme::Npm, "empty"),
        (b"Bearer ==", Scheme::Npm, "empty"),
        (b"Bearer a b", Scheme::Docker, "characters no token has"),
        (b"Bearer a, Bearer b", Scheme::Docker, "characters no token has"),
        (b"Bearer a=b", Scheme::Docker, "characters no token has"),
        (b"Basic", Scheme::Maven, "no colon"),
        (b"Basic !!!", Scheme::Maven, "not base64"),
        (b"Basic YTpi, Basic YTpi", Scheme::Maven, "not base64"),
        (b"Basic Og==", Scheme::Maven, "user name is empty"),
        (no_colon.as_bytes(), Scheme::Pypi, "no colon"),
        (latin1.as_bytes(), Scheme::Pypi, "UTF-8"),
        (control.as_bytes(), Scheme::Pypi, "control"),
        (nul.as_bytes(), Scheme::Pypi, "control"),
        (long_user.as_bytes(), Scheme::Pypi, "256"),
        (b"Basic X190b2tlbl9fOg==", Scheme::Pypi, "password is empty"),
        (b"Digest username=x", Scheme::Docker, "neither"),
        (b"Basic YTpi", Scheme::Bearer, "not 'Bearer'"),
        (b"Bearer abc", Scheme::Basic, "not 'Basic'"),
    ];
    for (header, scheme, reason) in cases {
        let told = String::from_utf8_lossy(header);
        match read(Some(header), scheme) {
            Credential::Malformed(found) => assert!(found.contains(reason), "{told}: {found}"),
            found => panic!("{scheme:?} {told}: {found:?}"),
        }
    }
    // Only cargo sends a token without a word before it.
    for scheme in Scheme::ALL {
        let raw = shown(&token(TokenKind::Personal).reveal(), scheme);
        assert_eq!(matches!(raw, Credential::Malformed(_)), scheme != Scheme::Cargo, "{scheme:?}");
    }
}

#[test]
fn a_token_has_one_spelling_of_known_shape() {
    let pat = token(TokenKind::Personal);
    let text = pat.reveal();
    assert!(text.starts_with("nora_pat_") && text.len() == 9 + 50, "{text}");
    let workload = token(TokenKind::Workload).reveal();
    assert!(workload.starts_with("nora_wl_") && workload.len() == 8 + 50, "{workload}");

    let back = ApiToken::parse(&text).unwrap();
    assert_eq!((back.kind, back.id, back.secret_hash()), (pat.kind, pat.id, pat.secret_hash()));
    assert_eq!(back.id_hex().len(), 32);
    assert_eq!(u128::from_str_radix(&back.id_hex(), 16).unwrap(), back.id);

    // All bits set is the largest number there is; the digits of a larger one are no token.
    let largest = ApiToken::generate(TokenKind::Personal, [0xff; 32]).reveal();
    assert!(ApiToken::parse(&largest).is_some());
    let mut body = "nora_pat_".to_owned() + &"z".repeat(44);
    let mut checksum = crc32fast::hash(body.as_bytes());
    let mut digits = Vec::new();
    for _ in 0..6 {
        let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        digits.push(char::from(alphabet[(checksum % 62) as usize]));
        checksum /= 62;
    }
    body.extend(digits.iter().rev());
    assert!(ApiToken::parse(&body).is_none(), "{body}");

    for wrong in [
        "",
        "nora_pat_",
        &text[1..],
        &text[..text.len() - 1],
        &format!("{text}0"),
        &format!(" {text}"),
        &text.replace("nora_pat_", "nora_wl_"),
        &text.replace("nora_pat_", "NORA_PAT_"),
        &text.replace("nora_pat_", "nora_st_"),
    ] {
        assert!(ApiToken::parse(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn a_hash_fits_its_own_secret_and_no_other() {
    let (one, two) = ([7; 32], {
        let mut two = [7; 32];
        two[31] = 8;
        two
    });
    let (one, two) = (
        ApiToken::generate(TokenKind::Personal, one),
        ApiToken::generate(TokenKind::Personal, two),
    );
    assert_eq!(one.id, two.id);
    assert!(one.verify(&one.secret_hash()) && !one.verify(&two.secret_hash()));
    assert!(!one.verify(&[0; 32]));
}

#[test]
fn no_text_of_a_credential_shows_its_secret() {
    let canary = "canary-91ab";
    let token = token(TokenKind::Personal);
    let secret = &token.reveal()[9 + 22..];
    let raw = format!("{:?}", [200_u8, 237, 18]);
    for told in [
        format!("{:?} {0}", Secret::new(canary)),
        format!("{:?}", shown(&basic(&format!("alice:{canary}")), Scheme::Docker)),
        format!("{:?}", shown(&format!("Bearer {canary}"), Scheme::Docker)),
        format!("{:?}", shown(&format!("Basic {canary}"), Scheme::Docker)),
        format!("{token:?} {:?}", shown(&token.reveal(), Scheme::Cargo)),
        format!("{token:#?}"),
    ] {
        assert!(!told.contains(canary) && !told.contains(secret), "{told}");
        assert!(!told.contains(raw.trim_matches(['[', ']'])), "{told}");
    }
    assert_eq!(Secret::new(canary).expose(), canary);
}

proptest! {
    #[test]
    fn tokens_come_back(random in any::<[u8; 32]>(), workload in any::<bool>()) {
        let kind = if workload { TokenKind::Workload } else { TokenKind::Personal };
        let token = ApiToken::generate(kind, random);
        let back = ApiToken::parse(&token.reveal()).unwrap();
        prop_assert_eq!(back.reveal(), token.reveal());
        prop_assert!(back.verify(&token.secret_hash()));
    }

    #[test]
    fn one_changed_character_is_seen(random in any::<[u8; 32]>(), place in any::<prop::sample::Index>(), by in any::<char>()) {
        let text = ApiToken::generate(TokenKind::Personal, random).reveal();
        let place = place.index(text.len());
        let changed = format!("{}{by}{}", &text[..place], &text[place + 1..]);
        prop_assert!(changed == text || ApiToken::parse(&changed).is_none());
    }

    #[test]
    fn no_header_makes_it_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        prop_assert!(ApiToken::parse(&text).is_none());
        let _ = ApiToken::parse(&format!("nora_pat_{text}"));
        for scheme in Scheme::ALL {
            let _ = read(Some(&bytes), scheme);
            let _ = read(Some(&[b"Bearer ", bytes.as_slice()].concat()), scheme);
            let _ = shown(&basic(&text), scheme);
        }
    }
}
