//! Both ports of uploads together: a suite opens a session with one, and ends it with the other.

use std::ops::Deref;

use nora_domain::{Digest, Generation, UploadId};

use crate::ports::BoxFuture;
use crate::ports::blobs::BlobCopy;
use crate::ports::uploads::{Finish, Sessions, UploadError};

/// The ports `Sessions` and `Finish` of one store.
#[derive(Clone, Copy)]
pub struct Uploads<'a> {
    sessions: &'a dyn Sessions,
    finish: &'a dyn Finish,
}

impl<'a> Uploads<'a> {
    /// Sessions, and what makes blobs of them.
    pub fn new(sessions: &'a dyn Sessions, finish: &'a dyn Finish) -> Self {
        Self { sessions, finish }
    }

    /// A store that is both.
    pub fn of<T: Sessions + Finish>(store: &'a T) -> Self {
        Self::new(store, store)
    }

    /// Ends a session.
    pub fn finish(
        self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'a, Result<BlobCopy, UploadError>> {
        self.finish.finish(id, digest, generation)
    }
}

impl<'a> Deref for Uploads<'a> {
    type Target = dyn Sessions + 'a;

    fn deref(&self) -> &(dyn Sessions + 'a) {
        self.sessions
    }
}
