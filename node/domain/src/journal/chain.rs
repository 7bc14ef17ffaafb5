//! The chain: SHA-256 over the value before, the entry's number, and every field of the entry.
//!
//! Guarantee: no two entries read alike. Each field is written with its length or its code before it, so an entry cannot
//! be changed, left out, moved or put in without every later value changing.

use sha2::{Digest as _, Sha256};

use super::{About, Actor, Deed, Entry, Event, Reason, Verdict};
use crate::digest::Digest;
use crate::names::RepositoryKey;
use crate::tag::Target;

/// What is hashed: fields, each of which tells where it ends.
struct Feed(Sha256);

impl Feed {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    fn digest(&mut self, digest: Digest) -> &mut Self {
        self.bytes(digest.value())
    }

    fn repository(&mut self, repository: &RepositoryKey) -> &mut Self {
        let RepositoryKey { tenant, format, path } = repository;
        self.text(tenant.as_str()).text(format.name()).text(path.as_str())
    }

    fn target(&mut self, target: &Target) -> &mut Self {
        match target {
            Target::Artifact(digest) => self.number(1).digest(*digest),
            Target::Version(version) => self.number(2).text(version.as_str()),
        }
    }

    fn actor(&mut self, actor: &Actor) -> &mut Self {
        let Actor { subject, token, address, request } = actor;
        self.text(&subject.to_string()).optional(token.as_deref()).text(address).text(request)
    }

    fn reason(&mut self, reason: &Reason) -> &mut Self {
        self.number(reason.code().into());
        match reason {
            Reason::Words(words) => self.text(words),
            _ => self,
        }
    }

    fn verdict(&mut self, verdict: &Verdict) -> &mut Self {
        match verdict {
            Verdict::Done => self.number(1),
            Verdict::Asked => self.number(2),
            Verdict::Refused(reason) => self.number(3).reason(reason),
            Verdict::Failed(reason) => self.number(4).reason(reason),
        }
    }

    fn about(&mut self, about: &About) -> &mut Self {
        match about {
            About::Registry => self.number(1),
            About::Repository(repository) => self.number(2).repository(repository),
            About::Content(repository, digest) => {
                self.number(3).repository(repository).digest(*digest)
            }
            About::Tagged(repository, digest, tags) => {
                self.number(4).repository(repository).digest(*digest).number(tags.len() as u64);
                tags.iter().fold(self, |feed, tag| feed.text(tag.as_str()))
            }
            About::Tag(repository, tag) => self.number(5).repository(repository).text(tag.as_str()),
            About::Version(repository, version) => {
                self.number(6).repository(repository).text(version.as_str())
            }
            About::File(repository, version, file) => {
                self.number(7).repository(repository).text(version.as_str()).text(file.as_str())
            }
            About::Policy => self.number(8),
            About::Account(account) => self.number(9).text(account.as_str()),
            About::NamedToken(owner, name) => self.number(10).text(owner).text(name),
            About::Token(token) => self.number(11).bytes(&token.0.to_be_bytes()),
            About::JoinToken => self.number(12),
            About::Node(node) => self.number(13).number(node.0),
            About::Cluster => self.number(14),
            About::Words(words) => self.number(15).text(words),
            About::Session(owner, token) => {
                self.number(20).text(owner);
                match token {
                    Some(token) => self.number(1).bytes(&token.0.to_be_bytes()),
                    None => self.number(0),
                }
            }
        }
    }

    fn event(&mut self, event: &Event) -> &mut Self {
        match event {
            Event::RepositoryCreated { repository } => self.number(1).repository(repository),
            Event::RepositoryRemoved { repository } => self.number(2).repository(repository),
            Event::BlobLinked { repository, digest, size } => {
                self.number(3).repository(repository).digest(*digest).number(*size)
            }
            Event::BlobUnlinked { repository, digest } => {
                self.number(4).repository(repository).digest(*digest)
            }
            Event::ArtifactPushed { repository, digest, media_type, size } => self
                .number(5)
                .repository(repository)
                .digest(*digest)
                .text(media_type.as_str())
                .number(*size),
            Event::ArtifactDeleted { repository, digest } => {
                self.number(6).repository(repository).digest(*digest)
            }
            Event::TagMoved { repository, tag, from, to } => {
                self.number(7).repository(repository).text(tag.as_str());
                match from {
                    Some(from) => self.number(1).target(from),
                    None => self.number(0),
                };
                self.target(to)
            }
            Event::TagDeleted { repository, tag, target } => {
                self.number(8).repository(repository).text(tag.as_str()).target(target)
            }
            Event::VersionPublished { repository, version, created } => self
                .number(9)
                .repository(repository)
                .text(version.as_str())
                .number(u64::from(*created)),
            Event::VersionStateChanged { repository, version } => {
                self.number(10).repository(repository).text(version.as_str())
            }
            Event::VersionDeleted { repository, version } => {
                self.number(11).repository(repository).text(version.as_str())
            }
            Event::FilePublished { repository, version, file, digest, size } => self
                .number(12)
                .repository(repository)
                .text(version.as_str())
                .text(file.as_str())
                .digest(*digest)
                .number(*size),
            Event::FileDeleted { repository, version, file } => {
                self.number(13).repository(repository).text(version.as_str()).text(file.as_str())
            }
            Event::BlobPlaced { digest } => self.number(14).digest(*digest),
            Event::NodeChanged { node } => self.number(15).number(node.0),
            Event::IdentityChanged => self.number(16),
            Event::FeatureLevelRaised { level } => self.number(17).number(level.0.into()),
            Event::ReplicasChanged { replicas } => self.number(18).number((*replicas).into()),
            Event::JournalSealed { first, last } => self.number(19).number(*first).number(*last),
            Event::JournalDropped { first } => self.number(20).number(*first),
        }
    }
}

impl Entry {
    /// The chain's value after this entry, given the value before it and the entry's number.
    pub fn chained(&self, before: &[u8; 32], number: u64) -> [u8; 32] {
        let Self { position, at, by, deed, verdict, count, events, chain: _ } = self;
        let mut feed = Feed(Sha256::new());
        feed.bytes(before).number(number).number(*position).number(at.0);
        match by {
            Some(actor) => feed.number(1).actor(actor),
            None => feed.number(0),
        };
        match deed {
            Some(Deed { verb, about }) => feed.number(verb.code().into()).about(about),
            None => feed.number(0),
        };
        feed.verdict(verdict).number((*count).into()).number(events.len() as u64);
        for event in events {
            feed.event(event);
        }
        feed.0.finalize().into()
    }

    /// About how many bytes the entry takes as a row. The same on every replica, whatever the encoding.
    pub fn weight(&self) -> u64 {
        const ENTRY: u64 = 128;
        const EVENT: u64 = 160;
        ENTRY + EVENT * self.events.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Subject, Verb};
    use crate::time::Timestamp;

    #[test]
    fn the_chain_covers_every_field_and_place() {
        let digest = Digest::sha256([7; 32]);
        let entry = Entry {
            position: 9,
            at: Timestamp(7),
            by: Some(Actor {
                subject: Subject::User("a".into()),
                token: None,
                address: "b".into(),
                request: "c".into(),
            }),
            deed: Some(Deed::new(Verb::PolicySet, About::Policy)),
            verdict: Verdict::Refused(Reason::NotPermitted),
            count: 1,
            events: vec![Event::BlobPlaced { digest }],
            chain: [0; 32],
        };
        let value = entry.chained(&[0; 32], 1);
        assert_eq!(value, entry.chained(&[0; 32], 1));
        assert_ne!(value, entry.chained(&[1; 32], 1));
        assert_ne!(value, entry.chained(&[0; 32], 2));
        let actor = |address: &str, request: &str| {
            Some(Actor {
                subject: Subject::User("a".into()),
                token: None,
                address: address.into(),
                request: request.into(),
            })
        };
        let others = [
            Entry { position: 8, ..entry.clone() },
            Entry { at: Timestamp(8), ..entry.clone() },
            Entry { by: None, ..entry.clone() },
            // The border between two texts counts.
            Entry { by: actor("bc", ""), ..entry.clone() },
            Entry { deed: None, ..entry.clone() },
            Entry { deed: Some(Deed::new(Verb::PolicySet, About::Cluster)), ..entry.clone() },
            Entry { deed: Some(Deed::new(Verb::TagSet, About::Policy)), ..entry.clone() },
            Entry { verdict: Verdict::Failed(Reason::NotPermitted), ..entry.clone() },
            Entry { verdict: Verdict::Refused(Reason::LoginNeeded), ..entry.clone() },
            Entry { count: 2, ..entry.clone() },
            Entry { events: Vec::new(), ..entry.clone() },
            Entry { events: vec![Event::IdentityChanged], ..entry.clone() },
        ];
        for other in others {
            assert_ne!(value, other.chained(&[0; 32], 1), "{other:?}");
        }
    }
}
