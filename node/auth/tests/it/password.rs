//! Passwords: they are compared rightly, logins of unknown users take as long, and htpasswd files are read whole or not.

use bcrypt::Version;
use nora_auth::password::{
    PasswordError, Passwords, Work, check_strength, hash, parse_htpasswd, verify,
};
use proptest::prelude::{any, prop_assert, proptest};

const PASSWORD: &str = "correct horse: battery";

fn bcrypt_hash(password: &str, cost: u32, version: Version) -> String {
    bcrypt::hash_with_salt(password, cost, [3; 16]).unwrap().format_for_version(version)
}

#[test]
fn our_own_hashes_have_the_parameters_that_owasp_asks_for() {
    let (one, two) = (hash(PASSWORD).unwrap(), hash(PASSWORD).unwrap());
    assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    assert_ne!(one, two, "each hash has a salt of its own");
    assert!(verify(PASSWORD, &one) && verify(PASSWORD, &two));
    assert!(!verify("correct horse: batterz", &one) && !verify("", &one));
}

#[test]
fn bcrypt_hashes_of_all_sound_versions_are_compared() {
    for version in [Version::TwoA, Version::TwoB, Version::TwoY] {
        let hash = bcrypt_hash(PASSWORD, 4, version);
        assert!(verify(PASSWORD, &hash), "{hash}");
        assert!(!verify("wrong", &hash), "{hash}");
    }
    // A hash that Apache's htpasswd made.
    let known = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    assert!(verify("myPassword", known) && !verify("mypassword", known));
    // 2x is of a program that forgot the eighth bit.
    assert!(!verify(PASSWORD, &bcrypt_hash(PASSWORD, 4, Version::TwoX)));
}

#[test]
fn a_password_that_bcrypt_would_cut_or_repeat_is_refused() {
    let whole = "x".repeat(72);
    let hash = bcrypt_hash(&whole, 4, Version::TwoB);
    assert!(verify(&whole, &hash));
    let longer = format!("{whole}whatever");
    assert!(bcrypt::verify(&longer, &hash).unwrap(), "bcrypt itself takes it");
    assert!(!verify(&longer, &hash));

    let hash = bcrypt_hash("abc", 4, Version::TwoB);
    assert!(bcrypt::verify("abc\0abc", &hash).unwrap(), "bcrypt itself takes it");
    assert!(!verify("abc\0abc", &hash));

    // Argon2 looks at every byte.
    let hash = nora_auth::password::hash(&longer).unwrap();
    assert!(verify(&longer, &hash) && !verify(&whole, &hash));
}

#[test]
fn hashes_that_are_none_or_too_dear_fit_nothing() {
    let argon2 = hash(PASSWORD).unwrap();
    let cost = |text: &str| bcrypt_hash("", 4, Version::TwoB).replacen("$04$", text, 1);
    for wrong in [
        "",
        "$",
        PASSWORD,
        "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "$apr1$salt$hash",
        "$argon2id$",
        "$2b$",
        &argon2[..argon2.len() - 1],
        &argon2.replacen("argon2id", "argon2i", 1),
        &argon2.replacen("argon2id", "argon2d", 1),
        &argon2.replacen("m=19456", "m=4194304", 1),
        &argon2.replacen("t=2", "t=4000000", 1),
        &argon2.replacen("p=1", "p=1000", 1),
        &cost("$31$"),
        &cost("$16$"),
        &cost("$03$"),
    ] {
        assert!(!verify(PASSWORD, wrong) && !verify("", wrong), "{wrong}");
        assert!(!Passwords::default().check("", Some(wrong)), "{wrong}");
    }
    assert!(!verify(&"x".repeat(1025), &argon2));
}

#[test]
fn weak_or_unsendable_passwords_are_not_stored() {
    assert_eq!(check_strength("1234567"), Err(PasswordError::TooShort));
    assert_eq!(check_strength("12345678"), Ok(()));
    assert_eq!(check_strength("äöüß"), Ok(()), "bytes count");
    assert_eq!(check_strength(&"x".repeat(1024)), Ok(()));
    assert_eq!(check_strength(&"x".repeat(1025)), Err(PasswordError::TooLong));
    assert_eq!(check_strength("new\nlines"), Err(PasswordError::Control));
    assert_eq!(hash("short"), Err(PasswordError::TooShort));
}

#[test]
fn a_login_says_yes_to_the_right_password_alone() {
    let (argon2, bcrypt) = (hash(PASSWORD).unwrap(), bcrypt_hash(PASSWORD, 4, Version::TwoY));
    for passwords in [Passwords::default(), Passwords::new([bcrypt.as_str()])] {
        for hash in [&argon2, &bcrypt] {
            assert!(passwords.check(PASSWORD, Some(hash)));
            assert!(!passwords.check("wrong", Some(hash)));
            assert!(!passwords.check(&"x".repeat(1025), Some(hash)));
        }
        assert!(!passwords.check(PASSWORD, None));
        assert!(!passwords.check("nobody's own salt", None));
    }
}

/// What a login computes, whose outcome is `right`.
fn work(passwords: Passwords, password: &str, hash: Option<&str>, right: bool) -> Work {
    let mut work = Work::default();
    assert_eq!(passwords.check_with(password, hash, &mut work), right);
    work
}

#[test]
fn unknown_users_take_as_much_work_as_known_ones() {
    let argon2 = hash(PASSWORD).unwrap();
    let (cheap, dear) =
        (bcrypt_hash(PASSWORD, 4, Version::TwoY), bcrypt_hash(PASSWORD, 6, Version::TwoY));
    let ours = 19 * 1024 * 2;
    // With htpasswd users of several costs: without levelling, the dearest would take several times the cheapest.
    for (passwords, bcrypt) in
        [(Passwords::default(), 0), (Passwords::new([cheap.as_str(), dear.as_str()]), 1 << 6)]
    {
        let expected = Work { argon2: ours, bcrypt };
        for password in [PASSWORD, "wrong"] {
            let right = password == PASSWORD;
            assert_eq!(work(passwords, password, None, false), expected, "unknown");
            assert_eq!(work(passwords, password, Some(&argon2), right), expected, "argon2");
            if bcrypt > 0 {
                assert_eq!(work(passwords, password, Some(&cheap), right), expected, "cheap");
                assert_eq!(work(passwords, password, Some(&dear), right), expected, "dear");
            }
        }
    }
    let long = "x".repeat(1025);
    assert_eq!(work(Passwords::default(), &long, None, false), Work::default());
}

#[test]
fn an_htpasswd_file_is_read() {
    let (one, two) = (bcrypt_hash("a", 5, Version::TwoY), bcrypt_hash("b", 4, Version::TwoB));
    let text = format!("# users\n\nalice:{one}\r\n  bob.b-c_d+e@example.com:{two}  \n");
    let users = parse_htpasswd(&text).unwrap();
    assert_eq!(users.len(), 2);
    assert_eq!(users["alice"], one);
    assert_eq!(users["bob.b-c_d+e@example.com"], two);
    assert!(parse_htpasswd("").unwrap().is_empty());
}

#[test]
fn everything_wrong_with_an_htpasswd_file_is_told_with_its_line_and_without_the_hash() {
    let good = bcrypt_hash("a", 4, Version::TwoY);
    let canary = "canaryCANARY";
    let long = "n".repeat(65);
    let cut = &good[..59];
    let lines = [
        ("alice", good.clone(), ""),
        ("md5", format!("$apr1${canary}$lZL6V/ci"), "htpasswd -B <file> md5"),
        ("sha", format!("{{SHA}}{canary}"), "htpasswd -B"),
        ("sha512", format!("$6${canary}$x"), "not hashed with bcrypt"),
        ("plain", canary.to_owned(), "not hashed with bcrypt"),
        ("bug", bcrypt_hash("a", 4, Version::TwoX), "not hashed with bcrypt"),
        ("alice", good.clone(), "line 1 already"),
        ("cut", cut.to_owned(), "incomplete or was changed"),
        ("more", format!("{good}:{canary}"), "incomplete or was changed"),
        ("dear", good.replacen("$04$", "$20$", 1), "cost outside 4 to 15"),
        ("cheap", good.replacen("$04$", "$01$", 1), "cost outside 4 to 15"),
        ("", good.clone(), "user name"),
        (&long, good.clone(), "user name"),
        ("a b", good.clone(), "user name"),
        ("müller", good.clone(), "user name"),
        ("a/b", good.clone(), "user name"),
        ("admin", good.clone(), "means something else"),
        ("Anonymous", good.clone(), "means something else"),
        ("authenticated", good.clone(), "means something else"),
    ];
    let mut text = String::new();
    for (user, hash, _) in &lines {
        text += &format!("{user}:{hash}\n");
    }
    text += "no colon here\n";
    let problems = parse_htpasswd(&text).unwrap_err();
    let numbers: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
    assert_eq!(numbers, (2..=20).collect::<Vec<_>>());
    for (line, told) in &problems {
        let expected = lines.get(line - 1).map_or("not user:hash", |(.., expected)| expected);
        assert!(told.contains(expected), "line {line}: {told}");
        assert!(!told.contains(canary) && !told.contains(&good[7..]), "line {line}: {told}");
    }

    let many = parse_htpasswd(&"x\n".repeat(5_000)).unwrap_err();
    assert_eq!(many.len(), 100);
    let huge = parse_htpasswd(&"#\n".repeat(3 * 1024 * 1024)).unwrap_err();
    assert!(huge[0].1.contains("larger than"), "{huge:?}");
}

proptest! {
    #[test]
    fn no_file_and_no_hash_makes_it_panic(text in any::<String>(), user in "[a-z]{0,5}") {
        let _ = parse_htpasswd(&text);
        let _ = parse_htpasswd(&format!("{user}:$2y$05${text}\n"));
        prop_assert!(!verify(&text, &text));
        for hash in [format!("$2y${text}"), format!("$argon2id${text}")] {
            prop_assert!(!verify("x", &hash));
        }
    }
}
