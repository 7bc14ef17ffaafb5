//! What the members share and nobody else knows, as this node has applied it: the administrator's password, the keys of
//! upload sessions' proofs and of webhooks' signatures are made from it.
//!
//! Guarantees: while the secret is replaced, members that have and members that have not applied the change understand each
//! other; once it is replaced, the old password opens nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nora_app::{Error, Registry};
use nora_domain::SharedSecret;

use super::admin::{AdminPasswords, shared_password};

/// The secrets of now.
pub(super) struct Secrets {
    state: ArcSwap<State>,
    is_loaded: AtomicBool,
}

struct State {
    /// The secret that is in force, and the one that comes.
    known: Vec<SharedSecret>,
    /// The first makes proofs. All of them are accepted.
    proofs: Vec<hmac::Key>,
    /// Those that come from the secrets.
    passwords: AdminPasswords,
}

/// A key for one purpose, which tells nothing about the secret or about other purposes' keys.
fn derived(secret: &SharedSecret, purpose: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0), purpose)
}

fn proof_key(secret: &SharedSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, derived(secret, b"NORA proofs of upload sessions").as_ref())
}

fn webhook_key(secret: &SharedSecret) -> hmac::Tag {
    derived(secret, b"NORA signatures of webhooks")
}

impl Secrets {
    /// Before any is known: what this makes, no other node understands.
    pub(super) fn unknown(random: [u8; 32]) -> Self {
        let state = State {
            known: Vec::new(),
            proofs: vec![proof_key(&SharedSecret(random))],
            passwords: AdminPasswords::new([]),
        };
        Self { state: ArcSwap::from_pointee(state), is_loaded: AtomicBool::new(false) }
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    /// Reads what this node has applied. Returns the administrator's password if it is another one than before.
    pub(super) async fn reload(&self, registry: &Registry) -> Result<Option<String>, Error> {
        let known: Vec<_> = registry.access().shared_secrets().await?;
        let before = self.state.load_full();
        let Some(secret) = known.first().filter(|_| before.known != known) else { return Ok(None) };
        let mut proofs: Vec<_> = known.iter().map(proof_key).collect();
        // An upload that began under the secret of before goes on. A proof opens no session to a caller without a login.
        if let Some(previous) = before.known.first().filter(|previous| !known.contains(previous)) {
            proofs.push(proof_key(previous));
        }
        let passwords: Vec<_> = known.iter().map(shared_password).collect();
        let has_changed = before.known.first() != Some(secret);
        let password = passwords.first().filter(|_| has_changed).cloned();
        let passwords = AdminPasswords::new(passwords.iter().map(String::as_str));
        self.state.store(Arc::new(State { known, proofs, passwords }));
        self.is_loaded.store(true, Ordering::Release);
        Ok(password)
    }

    /// A proof of these parts.
    pub(super) fn prove(&self, parts: &[&[u8]]) -> String {
        let state = self.state.load();
        state.proofs.first().map(|key| proof(key, parts)).unwrap_or_default()
    }

    /// Whether it is a proof of these parts.
    pub(super) fn is_proof(&self, shown: &str, parts: &[&[u8]]) -> bool {
        self.state.load().proofs.iter().any(|key| {
            verify_slices_are_equal(shown.as_bytes(), proof(key, parts).as_bytes()).is_ok()
        })
    }

    /// The key of webhooks' signatures as receivers take it, if a secret is known.
    pub(super) fn webhook_key(&self) -> Option<String> {
        let state = self.state.load();
        let key = webhook_key(state.known.first()?);
        Some(format!("whsec_{}", BASE64.encode(key.as_ref())))
    }

    /// A webhook's signatures, by the secret that is in force and by the one that comes: a receiver may have either key.
    /// `None` if no secret is known.
    pub(super) fn sign_webhook(&self, id: &str, at_secs: u64, body: &[u8]) -> Option<String> {
        let state = self.state.load();
        let signed = state.known.iter().map(|secret| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, webhook_key(secret).as_ref());
            let mut context = hmac::Context::with_key(&key);
            context.update(format!("{id}.{at_secs}.").as_bytes());
            context.update(body);
            format!("v1,{}", BASE64.encode(context.sign().as_ref()))
        });
        let signed: Vec<_> = signed.collect();
        (!signed.is_empty()).then(|| signed.join(" "))
    }

    /// The generation of the administrator's sessions, if it is a password that comes from the secrets.
    pub(super) fn accept(&self, password: &str) -> Option<u64> {
        self.state.load().passwords.accept(password)
    }

    /// Whether sessions of that generation come from such a password.
    pub(super) fn has_generation(&self, generation: u64) -> bool {
        self.state.load().passwords.has_generation(generation)
    }
}

fn proof(key: &hmac::Key, parts: &[&[u8]]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    nora_domain::hex::encode(&context.sign().as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use nora_app::ports::metadata::Metadata;
    use nora_domain::{
        AuthorityKeys, BeginRotation, Command, ConfirmRotation, RotationStage, Terms, UploadId,
    };

    use super::*;
    use crate::testkit::{MemoryNode, NODE, NOW};

    const UPLOAD: UploadId = UploadId(7);

    async fn proposed(node: &MemoryNode, action: nora_domain::Action) {
        let command = Command { at: NOW, origin: None, terms: Terms::NONE, action };
        node.metadata.propose(command).await.unwrap().unwrap();
        node.guard.reload().await.unwrap();
    }

    #[tokio::test]
    async fn uploads_go_on_over_a_rotation_and_the_old_password_ends() {
        let node = MemoryNode::without_policy(false).await;
        node.guard.reload().await.unwrap();
        let secret = |byte| SharedSecret([byte; 32]);
        let old = shared_password(&node.registry.access().shared_secrets().await.unwrap()[0]);
        let new = shared_password(&secret(8));
        let accepted = |password: &str| node.guard.secrets.accept(password).is_some();
        assert!(accepted(&old) && !accepted(&new));
        let caller = node.guard.administrator(None, "request".into());
        let proof = node.guard.session_proof(&caller, UPLOAD).unwrap();
        let old_key = node.guard.secrets.webhook_key().unwrap();
        let keys = AuthorityKeys { certificate: vec![8], key: vec![8] };
        let begin = BeginRotation { keys, secret: secret(8), session_key: secret(9) };
        proposed(&node, begin.into()).await;
        let signed = node.guard.secrets.sign_webhook("id", 1, b"body").unwrap();
        assert_eq!(signed.matches("v1,").count(), 2, "by the old key and by the new one: {signed}");
        // Another member may be ahead: what it makes is understood here.
        let ahead = Secrets::unknown([0; 32]);
        ahead.state.store(Arc::new(State {
            known: vec![secret(8)],
            proofs: vec![proof_key(&secret(8))],
            passwords: AdminPasswords::new([]),
        }));
        let subject = caller.identity().subject.to_string();
        let of_another = ahead.prove(&[&UPLOAD.0.to_be_bytes(), subject.as_bytes()]);
        for stage in [RotationStage::Trust, RotationStage::Show] {
            assert!(accepted(&old) && accepted(&new), "{stage:?}");
            for shown in [&proof, &of_another] {
                assert!(node.guard.is_session_proof(&caller, UPLOAD, shown), "{stage:?}");
            }
            let certificate = vec![8];
            proposed(&node, ConfirmRotation { stage, certificate, node: NODE }.into()).await;
        }
        assert!(!accepted(&old) && accepted(&new));
        assert_eq!(node.guard.session_proof(&caller, UPLOAD).unwrap(), of_another);
        assert!(node.guard.is_session_proof(&caller, UPLOAD, &proof), "an upload broke off");
        assert!(
            node.guard.secrets.webhook_key().is_some_and(|key| key != old_key),
            "the key is another"
        );
        assert!(!node.guard.is_session_proof(&caller, UploadId(8), &proof));
    }
}
