//! Snapshots from the leader to a member that is too far behind for entries.
//!
//! Guarantees: a snapshot passes through memory in chunks; what a broken transfer left is not sent again; a snapshot is
//! installed only when every file was read back and is what the sender's manifest says. Only files that the manifest
//! names are written, below one directory. One transfer is taken in at a time, the newest: a sender that hangs keeps nobody
//! out.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream;
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::raft_client::RaftClient;
use nora_proto::peer::v1::snapshot_chunk::Part;
use openraft::async_runtime::WatchReceiver;
use openraft::error::RPCError;
use tokio::sync::{Mutex, MutexGuard, mpsc, watch};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::network::{failed, malformed};
use crate::codec::raft::{
    Manifest, encode_manifest, manifest_from_proto, manifest_to_proto, vote_from_proto,
    vote_to_proto,
};
use crate::consensus::Consensus;
use crate::raft::log_store::blocking;
use crate::raft::snapshot::{SnapshotHandle, is_whole_file, read_manifest, write_manifest};
use crate::raft::{Snapshot, TypeConfig, Vote};
use crate::rocks::{remove_directory, sync_directory};

/// What one message carries.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks read ahead of the connection.
const CHUNKS_AHEAD: usize = 2;

/// How long a sender may be silent. A dead connection is noticed sooner; this is for a sender that hangs and that no other
/// one follows.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a transfer waits for the one before to let go: for a chunk to be written, or a snapshot to be installed.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Names a snapshot by what it consists of, so that a transfer goes on only with the very same files.
fn snapshot_id(manifest: &Manifest) -> String {
    blake3::hash(&encode_manifest(manifest)).to_hex().to_string()
}

/// Sends a snapshot, without what the receiver has already, and gives the receiver's vote once it is installed.
pub(super) async fn send(
    mut client: RaftClient<Channel>,
    vote: &Vote,
    snapshot: &SnapshotHandle,
) -> Result<Vote, RPCError<TypeConfig>> {
    let id = snapshot_id(snapshot.manifest());
    let manifest = manifest_to_proto(snapshot.manifest());
    let progress = client
        .snapshot_progress(proto::SnapshotProgressRequest {
            snapshot_id: id.clone(),
            manifest: Some(manifest.clone()),
        })
        .await
        .map_err(|status| failed(&status))?
        .into_inner();
    let header = proto::SnapshotHeader {
        vote: Some(vote_to_proto(vote)),
        snapshot_id: id,
        manifest: Some(manifest),
    };
    let (chunks, mut queue) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::task::spawn_blocking({
        let snapshot = snapshot.clone();
        move || read_chunks(&snapshot, header, &progress.files, &chunks)
    });
    let messages = stream::poll_fn(move |context| queue.poll_recv(context));
    let installed = client.install_snapshot(messages).await;
    match reading.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot read a snapshot to send it"),
        Err(error) => tracing::warn!(%error, "reading a snapshot to send it ended early"),
    }
    let answer = installed.map_err(|status| failed(&status))?.into_inner();
    let vote = answer.vote.as_ref().ok_or_else(|| malformed("a receiver's vote"))?;
    Ok(vote_from_proto(vote))
}

/// Reads a snapshot's files from where the receiver has them to. Ends early if nobody takes them any more.
fn read_chunks(
    snapshot: &SnapshotHandle,
    header: proto::SnapshotHeader,
    there: &[proto::SnapshotFileProgress],
    chunks: &mpsc::Sender<proto::SnapshotChunk>,
) -> io::Result<()> {
    let send = |part| chunks.blocking_send(proto::SnapshotChunk { part: Some(part) }).is_ok();
    if !send(Part::Header(header)) {
        return Ok(());
    }
    for (name, summary) in &snapshot.manifest().files {
        let there = there.iter().find(|file| file.file == *name).map_or(0, |file| file.bytes);
        let mut file = File::open(snapshot.files().join(name))?;
        let mut offset = there.min(summary.size);
        file.seek(SeekFrom::Start(offset))?;
        while offset < summary.size {
            let length = (summary.size - offset).min(CHUNK_BYTES as u64) as usize;
            let mut data = vec![0; length];
            file.read_exact(&mut data)?;
            let bytes = proto::SnapshotBytes { file: name.clone(), offset, data: data.into() };
            offset += length as u64;
            if !send(Part::Bytes(bytes)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Where snapshots come in.
pub struct Incoming {
    root: PathBuf,
    busy: Mutex<()>,
    /// Number of the newest transfer.
    newest: watch::Sender<u64>,
}

/// A transfer's turn: nobody else takes anything in meanwhile, and it ends when a newer one comes.
struct Turn<'a> {
    number: u64,
    newest: watch::Receiver<u64>,
    _alone: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// The next message of the transfer.
    async fn next(
        &mut self,
        messages: &mut Streaming<proto::SnapshotChunk>,
    ) -> Result<Option<proto::SnapshotChunk>, Status> {
        let number = self.number;
        tokio::select! {
            message = tokio::time::timeout(SILENCE_TIMEOUT, messages.message()) => {
                message.map_err(|_| {
                    Status::deadline_exceeded("the snapshot's sender has fallen silent")
                })?
            }
            _ = self.newest.wait_for(|newest| *newest > number) => {
                Err(Status::aborted("another transfer of a snapshot has taken over"))
            }
        }
    }
}

const FILES: &str = "files";

impl Incoming {
    /// Takes snapshots into directories below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, busy: Mutex::new(()), newest: watch::Sender::new(0) }
    }

    /// What of a snapshot is there: whole files that were read back, and the beginnings of others.
    pub async fn progress(
        &self,
        id: String,
        manifest: Manifest,
    ) -> Result<Vec<proto::SnapshotFileProgress>, Status> {
        let _turn = self.turn().await?;
        let directory = self.directory(&id, &manifest)?;
        let root = self.root.clone();
        blocking(move || {
            prepare(&root, &directory, &manifest)?;
            there(&directory, &manifest)
        })
        .await
        .map_err(|error| failed_here(&error))
    }

    /// Takes a snapshot in and installs it. Gives this node's vote: a higher one than the sender's tells it that it no
    /// longer leads.
    pub async fn receive(
        &self,
        raft: &Consensus,
        mut messages: Streaming<proto::SnapshotChunk>,
    ) -> Result<Vote, Status> {
        let mut turn = self.turn().await?;
        let first = turn.next(&mut messages).await?;
        let Some(Part::Header(header)) = first.and_then(|chunk| chunk.part) else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        let (vote, manifest) = match (header.vote, header.manifest) {
            (Some(vote), Some(manifest)) => (vote_from_proto(&vote), manifest_from_proto(manifest)),
            _ => return Err(Status::invalid_argument("the snapshot's header is malformed")),
        };
        let manifest = manifest.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let known = raft.metrics().borrow_watched().vote;
        if known > vote {
            return Ok(known);
        }
        let directory = self.directory(&header.snapshot_id, &manifest)?;
        let root = self.root.clone();
        let (to, of) = (directory.clone(), manifest.clone());
        blocking(move || prepare(&root, &to, &of)).await.map_err(|error| failed_here(&error))?;
        take_files(&mut turn, &directory, &manifest, messages).await?;
        let of = manifest.clone();
        let to = directory.clone();
        let snapshot =
            blocking(move || finish(&to, &of)).await.map_err(|error| failed_here(&error))?;
        let snapshot = Snapshot::from(snapshot);
        let answer = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| {
            Status::unavailable(format!("this node has left consensus: {error}"))
        })?;
        // One that was not needed after all is still there.
        blocking(move || remove_directory(&directory))
            .await
            .map_err(|error| failed_here(&error))?;
        Ok(answer.vote)
    }

    /// Takes over from whoever is at it.
    async fn turn(&self) -> Result<Turn<'_>, Status> {
        let mut number = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let alone = tokio::time::timeout(TAKE_OVER_TIMEOUT, self.busy.lock()).await;
        let _alone = alone
            .map_err(|_| Status::aborted("another snapshot is being installed: try again later"))?;
        Ok(Turn { number, newest: self.newest.subscribe(), _alone })
    }

    /// Where a snapshot comes in. Its name is computed here, and its files' names are looked at, because both become
    /// paths.
    fn directory(&self, id: &str, manifest: &Manifest) -> Result<PathBuf, Status> {
        if id != snapshot_id(manifest) {
            return Err(Status::invalid_argument(
                "the snapshot's name is not that of its manifest",
            ));
        }
        let plain = |name: &String| {
            Path::new(name).file_name() == Some(name.as_ref()) && !name.starts_with('.')
        };
        if !manifest.files.keys().all(plain) {
            return Err(Status::invalid_argument("the snapshot has a file whose name is none"));
        }
        Ok(self.root.join(id))
    }
}

/// Writes what comes, until all of it is there.
async fn take_files(
    turn: &mut Turn<'_>,
    directory: &Path,
    manifest: &Manifest,
    mut messages: Streaming<proto::SnapshotChunk>,
) -> Result<(), Status> {
    let mut current: Option<(String, File)> = None;
    while let Some(chunk) = turn.next(&mut messages).await? {
        let Some(Part::Bytes(bytes)) = chunk.part else {
            return Err(Status::invalid_argument("a snapshot has one header"));
        };
        let Some(summary) = manifest.files.get(&bytes.file) else {
            return Err(Status::invalid_argument("the snapshot has no such file"));
        };
        let end = bytes.offset.checked_add(bytes.data.len() as u64);
        if end.is_none_or(|end| end > summary.size) {
            return Err(Status::invalid_argument("a chunk reaches beyond its file"));
        }
        let file = current.take().filter(|(name, _)| *name == bytes.file);
        let path = directory.join(FILES).join(&bytes.file);
        let written = blocking(move || write_chunk(file, &path, bytes)).await;
        current = Some(written.map_err(|error| failed_here(&error))?);
    }
    Ok(())
}

fn failed_here(error: &io::Error) -> Status {
    tracing::warn!(%error, "cannot take a snapshot in");
    Status::aborted(format!("the receiver cannot store the snapshot: {error}"))
}

/// What of each file is there. One of full size that is not what it should be goes.
fn there(directory: &Path, manifest: &Manifest) -> io::Result<Vec<proto::SnapshotFileProgress>> {
    let mut files = Vec::new();
    for (name, summary) in &manifest.files {
        let path = directory.join(FILES).join(name);
        let bytes = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if bytes > summary.size || (bytes == summary.size && !is_whole_file(&path, summary)?) {
            fs::remove_file(&path)?;
            continue;
        }
        files.push(proto::SnapshotFileProgress { file: name.clone(), bytes });
    }
    Ok(files)
}

/// Prepares to take a snapshot in: keeps the files that came in for an earlier snapshot and are files of this one too, and
/// removes the rest of earlier ones.
fn prepare(root: &Path, directory: &Path, manifest: &Manifest) -> io::Result<()> {
    fs::create_dir_all(directory.join(FILES))?;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path != directory {
            reuse(&path, directory, manifest)?;
            remove_directory(&path)?;
        }
    }
    // Empty files have no chunk that would make them.
    for (name, summary) in &manifest.files {
        if summary.size == 0 {
            File::create(directory.join(FILES).join(name))?;
        }
    }
    write_manifest(directory, manifest)
}

/// Moves files of an earlier transfer that are files of this snapshot too, whole ones and beginnings. RocksDB never changes
/// a table, so most of two snapshots are the same files. A file is known by its size and hash; its name may differ.
fn reuse(earlier: &Path, directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let known = match read_manifest(earlier) {
        Ok(known) => known,
        // Nothing of a transfer whose manifest is not there or is damaged is used.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut names = HashMap::new();
    for (name, summary) in &known.files {
        names.insert((summary.size, summary.hash), name);
    }
    for (name, summary) in manifest.files.iter().filter(|(_, summary)| summary.size > 0) {
        let to = directory.join(FILES).join(name);
        let Some(earlier_name) = names.get(&(summary.size, summary.hash)) else { continue };
        if to.try_exists()? {
            continue;
        }
        match fs::rename(earlier.join(FILES).join(earlier_name), &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_chunk(
    file: Option<(String, File)>,
    path: &Path,
    bytes: proto::SnapshotBytes,
) -> io::Result<(String, File)> {
    let (name, mut file) = match file {
        Some(open) => open,
        None => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            if file.metadata()?.len() != bytes.offset {
                let text = format!("a chunk of {} does not follow what is there", bytes.file);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            (bytes.file, file)
        }
    };
    file.write_all(&bytes.data)?;
    Ok((name, file))
}

/// Reads everything back and makes it durable. What is not as it should be goes, to be sent anew.
fn finish(directory: &Path, manifest: &Manifest) -> io::Result<SnapshotHandle> {
    for (name, summary) in &manifest.files {
        let path = directory.join(FILES).join(name);
        match File::open(&path) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("the transfer ended before {name}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Err(error) => return Err(error),
        }
        if !is_whole_file(&path, summary)? {
            // A beginning stays, to go on from.
            if fs::metadata(&path)?.len() >= summary.size {
                fs::remove_file(&path)?;
            }
            let text = format!("{name} is not the file that was sent");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    sync_directory(&directory.join(FILES))?;
    SnapshotHandle::open(directory.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::codec::raft::FileSummary;
    use crate::raft::StoredMembership;

    fn manifest(files: &[(&str, &[u8])]) -> Manifest {
        let files = files.iter().map(|(name, bytes)| {
            let hash = *blake3::hash(bytes).as_bytes();
            ((*name).to_owned(), FileSummary { size: bytes.len() as u64, hash })
        });
        let files: BTreeMap<_, _> = files.collect();
        Manifest { last_log_id: None, membership: StoredMembership::default(), files }
    }

    fn progress(directory: &Path, manifest: &Manifest) -> Vec<(String, u64)> {
        let there = there(directory, manifest).unwrap();
        there.into_iter().map(|file| (file.file, file.bytes)).collect()
    }

    #[test]
    fn a_later_snapshot_takes_over_the_files_that_it_shares_with_an_earlier_one() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        let (table, half, other) = ([1_u8; 900], [2_u8; 800], [3_u8; 700]);
        let earlier = manifest(&[("1.sst", &table), ("2.sst", &half), ("CURRENT", &other)]);
        prepare(root.path(), &first, &earlier).unwrap();
        fs::write(first.join("files/1.sst"), table).unwrap();
        fs::write(first.join("files/2.sst"), &half[..300]).unwrap();
        fs::write(first.join("files/CURRENT"), other).unwrap();

        let later = manifest(&[("1.sst", &table), ("7.sst", &half), ("CURRENT", &[4; 700])]);
        prepare(root.path(), &second, &later).unwrap();
        let shared = [("1.sst".to_owned(), 900), ("7.sst".to_owned(), 300)];
        assert_eq!(progress(&second, &later), shared);
        assert!(!first.exists(), "the rest of the earlier snapshot is gone");
        // A file that is not what its manifest says is sent anew.
        let third = root.path().join("third");
        fs::write(second.join("files/1.sst"), [9; 900]).unwrap();
        prepare(root.path(), &third, &earlier).unwrap();
        assert_eq!(progress(&third, &earlier), [("2.sst".to_owned(), 300)]);
    }
}
