//! One request's body on its way into a session.
//!
//! Guarantees: while one batch of frames is hashed and written the next ones are read, but no more than fit the queue; a
//! request that is dropped leaves the session as one that ended: what it had read is written, and the session is free
//! again. Must not know how bytes are hashed, laid out or sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use nora_app::ports::ByteStream;
use nora_app::ports::uploads::{UploadError, UploadState};
use nora_uploads::{Writer as _, on_disk};
use tokio::sync::mpsc;

use crate::bucket::Bucket;
use crate::session::Claim;

/// Frames that wait to be written, and that are written at once.
const FRAMES_QUEUED_MAX: usize = 8;
const FRAMES_BATCH_MAX: usize = 16;

/// Appends a body to the session.
pub(crate) async fn take_in(
    bucket: Arc<Bucket>,
    claim: Claim,
    mut body: ByteStream,
    bytes_max: u64,
) -> Result<UploadState, UploadError> {
    let mut end = claim.offset();
    let (sender, receiver) = mpsc::channel(FRAMES_QUEUED_MAX);
    // A task of its own: should the request be dropped, what it had read is written all the same.
    let writing = tokio::spawn(write(bucket, claim, receiver));
    let outcome = loop {
        // A frame is read only when there is room for it, so that none is lost between the two.
        let Ok(room) = sender.reserve().await else {
            break Ok(());
        };
        match body.next().await {
            None => break Ok(()),
            Some(Err(source)) => break Err(UploadError::BodyBroken(source)),
            Some(Ok(frame)) if frame.is_empty() => {}
            Some(Ok(frame)) => {
                end = end.saturating_add(frame.len() as u64);
                if end > bytes_max {
                    break Err(UploadError::TooLarge { bytes_max });
                }
                room.send(frame);
            }
        }
    };
    drop(sender);
    let claim = match writing.await {
        Ok(written) => written?,
        Err(error) => {
            return Err(UploadError::Io { step: "write the upload", source: error.into() });
        }
    };
    outcome.map(|()| claim.state())
}

/// Writes frames until no more come.
async fn write(
    bucket: Arc<Bucket>,
    mut claim: Claim,
    mut receiver: mpsc::Receiver<Bytes>,
) -> Result<Claim, UploadError> {
    let mut received = Vec::with_capacity(FRAMES_BATCH_MAX);
    while receiver.recv_many(&mut received, FRAMES_BATCH_MAX).await > 0 {
        let mut frames = VecDeque::from(std::mem::take(&mut received));
        while !frames.is_empty() {
            if claim.part_is_full() {
                claim.begin_next_part(&bucket).await?;
            }
            let written;
            (claim, frames, written) = on_disk("write the upload", move || {
                let written = claim.write(&mut frames);
                Ok((claim, frames, written))
            })
            .await?;
            claim.record_progress();
            on_disk("write the upload", move || written).await?;
        }
    }
    claim.rest();
    Ok(claim)
}
