//! Every change of one folder, recorded in the order in which the kernel made it.
//!
//! RocksDB is linked statically and knows no file system but libc's, so this binary defines libc's calls itself: the
//! linker takes an executable's symbols before a library's. Each makes the system call, and while a recording is on it
//! notes what came of it, under one lock, so that the record has an order.
//!
//! Proof for `unsafe`, which holds for each function here: its signature is that of the libc function of its name (for
//! `open` and `openat`, C passes the variable argument in the register of a third or fourth one on x86-64 and AArch64,
//! and it is only used where the flags say that it is there). What a caller must guarantee of pointers, the kernel
//! requires too: they go to the system call unchanged, and are read here only after the kernel has accepted them, as
//! long as the call goes on and no further than the call says.
#![allow(
    unsafe_code,
    reason = "the binary takes the place of libc's functions; the proof is above"
)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "one proof, above, holds for all of them")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{iovec, mode_t, off_t, size_t, ssize_t, syscall};
use nora_cluster::raft::LogId;

/// A file or a folder, whatever its names.
pub type Node = usize;

/// The recorded folder itself.
pub const ROOT: Node = 0;

/// What the run says of itself, between the calls.
#[derive(Clone, Debug)]
pub enum Note {
    /// The stores may show this version from now on.
    Begun(usize),
    /// The stores must show this version, or a later one.
    Done(usize),
    /// A snapshot up to here was reported as made.
    Snapshot(Option<LogId>),
}

/// One change.
#[derive(Clone, Debug)]
pub enum Op {
    MakeFile(Node, String, Node),
    MakeFolder(Node, String, Node),
    Link(Node, String, Node),
    Unlink(Node, String),
    Rename((Node, String), (Node, String)),
    Write(Node, u64, Vec<u8>),
    Resize(Node, u64),
    Sync(Node),
    Note(Note),
}

impl Op {
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::Sync(_))
    }
}

static ON: AtomicBool = AtomicBool::new(false);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);
/// One recording at a time.
static TURN: Mutex<()> = Mutex::new(());

struct Recorder {
    root: PathBuf,
    folders: HashMap<Node, BTreeMap<String, Node>>,
    open: HashMap<c_int, Node>,
    next: Node,
    ops: Vec<Op>,
}

/// The right to record, until [`end`].
pub struct Recording(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

/// Records what becomes of `root`, which is empty.
pub fn begin(root: &Path) -> Recording {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    *recorder() = Some(Recorder {
        root: root.to_owned(),
        folders: HashMap::from([(ROOT, BTreeMap::new())]),
        open: HashMap::new(),
        next: ROOT + 1,
        ops: Vec::new(),
    });
    ON.store(true, Ordering::SeqCst);
    Recording(turn)
}

/// Ends the recording.
pub fn end(_: Recording) -> Vec<Op> {
    ON.store(false, Ordering::SeqCst);
    recorder().take().map(|recorder| recorder.ops).unwrap_or_default()
}

/// Puts a note into the record.
pub fn note(note: Note) {
    if let Some(recorder) = recorder().as_mut() {
        recorder.ops.push(Op::Note(note));
    }
}

fn recorder() -> MutexGuard<'static, Option<Recorder>> {
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a call, and notes it if it succeeded.
fn call(make: impl FnOnce() -> c_long, record: impl FnOnce(&mut Recorder, c_long)) -> c_long {
    if !ON.load(Ordering::SeqCst) {
        return make();
    }
    let mut recorder = recorder();
    let done = make();
    if done >= 0
        && let Some(recorder) = recorder.as_mut()
    {
        record(recorder, done);
    }
    done
}

impl Recorder {
    /// The folder and the name that a path means; none outside the recorded folder.
    fn place(&self, folder: c_int, path: *const c_char) -> Option<(Node, String)> {
        let path = unsafe { CStr::from_ptr(path) };
        let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        let (mut at, path) = if path.is_absolute() {
            (ROOT, path.strip_prefix(&self.root).ok()?)
        } else {
            (*self.open.get(&folder)?, path)
        };
        let mut names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        let mut name = names.next()?;
        for next in names {
            at = *self.folders.get(&at)?.get(&name)?;
            name = next;
        }
        Some((at, name))
    }

    fn node(&self, (folder, name): &(Node, String)) -> Option<Node> {
        self.folders.get(folder)?.get(name).copied()
    }

    fn make(&mut self, (folder, name): (Node, String), is_folder: bool) -> Node {
        let node = self.next;
        self.next += 1;
        self.folders.get_mut(&folder).unwrap().insert(name.clone(), node);
        if is_folder {
            self.folders.insert(node, BTreeMap::new());
            self.ops.push(Op::MakeFolder(folder, name, node));
        } else {
            self.ops.push(Op::MakeFile(folder, name, node));
        }
        node
    }

    fn opened(&mut self, fd: c_int, folder: c_int, path: *const c_char, flags: c_int) {
        self.open.remove(&fd);
        let whole = unsafe { CStr::from_ptr(path) }.to_bytes();
        if Path::new(std::ffi::OsStr::from_bytes(whole)) == self.root {
            self.open.insert(fd, ROOT);
        }
        let Some(place) = self.place(folder, path) else { return };
        let node = match self.node(&place) {
            Some(node) => {
                if flags & libc::O_TRUNC != 0 {
                    self.ops.push(Op::Resize(node, 0));
                }
                node
            }
            None => self.make(place, false),
        };
        self.open.insert(fd, node);
    }

    fn on(&mut self, fd: c_int, op: impl FnOnce(Node) -> Op) {
        if let Some(node) = self.open.get(&fd) {
            self.ops.push(op(*node));
        }
    }

    fn wrote(&mut self, fd: c_int, at: Option<off_t>, from: *const c_void, done: c_long) {
        let Some(node) = self.open.get(&fd).copied() else { return };
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), done as usize) };
        // Where the file is at now is behind what was written, also if it was opened for appending.
        let at =
            at.unwrap_or_else(|| unsafe { syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) } - done);
        self.ops.push(Op::Write(node, at as u64, bytes.to_vec()));
    }

    fn unlinked(&mut self, place: Option<(Node, String)>) {
        let Some((folder, name)) = place else { return };
        self.folders.get_mut(&folder).unwrap().remove(&name);
        self.ops.push(Op::Unlink(folder, name));
    }

    fn renamed(&mut self, from: Option<(Node, String)>, to: Option<(Node, String)>) {
        let (from, to) = match (from, to) {
            (Some(from), Some(to)) => (from, to),
            (None, None) => return,
            way => panic!("something was moved in or out: {way:?}"),
        };
        let node = self.folders.get_mut(&from.0).unwrap().remove(&from.1).unwrap();
        self.folders.get_mut(&to.0).unwrap().insert(to.1.clone(), node);
        self.ops.push(Op::Rename(from, to));
    }

    fn linked(&mut self, from: Option<(Node, String)>, to: Option<(Node, String)>) {
        let Some((folder, name)) = to else { return };
        let node = self.node(&from.unwrap()).unwrap();
        self.folders.get_mut(&folder).unwrap().insert(name.clone(), node);
        self.ops.push(Op::Link(folder, name, node));
    }
}

fn refuse(errno: c_int) -> c_long {
    unsafe { *libc::__errno_location() = errno };
    -1
}

const HERE: c_int = libc::AT_FDCWD;

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { openat(HERE, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { openat(HERE, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    unsafe { openat(folder, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    let mode = if flags & libc::O_CREAT != 0 { mode } else { 0 };
    let make = || unsafe { syscall(libc::SYS_openat, folder, path, flags, mode) };
    call(make, |recorder, fd| recorder.opened(fd as c_int, folder, path, flags)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    let make = || unsafe { syscall(libc::SYS_close, fd) };
    call(make, |recorder, _| {
        recorder.open.remove(&fd);
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, from: *const c_void, count: size_t) -> ssize_t {
    let make = || unsafe { syscall(libc::SYS_write, fd, from, count) };
    call(make, |recorder, done| recorder.wrote(fd, None, from, done)) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if ON.load(Ordering::SeqCst) && count > 0 {
        // A short write is allowed, so that the record knows one kind only.
        let first = unsafe { &*parts };
        return unsafe { write(fd, first.iov_base, first.iov_len) };
    }
    (unsafe { syscall(libc::SYS_writev, fd, parts, count) }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, count: size_t, at: off_t) -> ssize_t {
    let make = || unsafe { syscall(libc::SYS_pwrite64, fd, from, count, at) };
    call(make, |recorder, done| recorder.wrote(fd, Some(at), from, done)) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, count: size_t, at: off_t) -> ssize_t {
    unsafe { pwrite(fd, from, count, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    let make = || unsafe { syscall(libc::SYS_fsync, fd) };
    call(make, |recorder, _| recorder.on(fd, Op::Sync)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    let make = || unsafe { syscall(libc::SYS_fdatasync, fd) };
    call(make, |recorder, _| recorder.on(fd, Op::Sync)) as c_int
}

/// Promises nothing that survives a power cut, so nothing is recorded.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(fd: c_int, at: off_t, count: off_t, flags: u32) -> c_int {
    (unsafe { syscall(libc::SYS_sync_file_range, fd, at, count, flags) }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, size: off_t) -> c_int {
    let make = || unsafe { syscall(libc::SYS_ftruncate, fd, size) };
    call(make, |recorder, _| recorder.on(fd, |node| Op::Resize(node, size as u64))) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, size: off_t) -> c_int {
    unsafe { ftruncate(fd, size) }
}

/// Room that does not count as size is nothing to record; other uses end the recorded run.
#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate(fd: c_int, how: c_int, at: off_t, count: off_t) -> c_int {
    let make = || unsafe { syscall(libc::SYS_fallocate, fd, how, at, count) };
    let keeps_size = how & libc::FALLOC_FL_KEEP_SIZE != 0;
    call(make, |recorder, _| {
        assert!(keeps_size || !recorder.open.contains_key(&fd), "fallocate({how})");
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate64(fd: c_int, how: c_int, at: off_t, count: off_t) -> c_int {
    unsafe { fallocate(fd, how, at, count) }
}

/// Not there while a recording is on: who asks copies by reading and writing instead.
#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    count: size_t,
    flags: u32,
) -> ssize_t {
    if ON.load(Ordering::SeqCst) {
        return refuse(libc::ENOSYS) as ssize_t;
    }
    (unsafe { syscall(libc::SYS_copy_file_range, from, from_at, to, to_at, count, flags) })
        as ssize_t
}

/// Like [`copy_file_range`].
#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t {
    if ON.load(Ordering::SeqCst) {
        return refuse(libc::EINVAL) as ssize_t;
    }
    (unsafe { syscall(libc::SYS_sendfile, to, from, at, count) }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t {
    unsafe { sendfile(to, from, at, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    unsafe { mkdirat(HERE, path, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdirat(folder: c_int, path: *const c_char, mode: mode_t) -> c_int {
    let make = || unsafe { syscall(libc::SYS_mkdirat, folder, path, mode) };
    call(make, |recorder, _| {
        if let Some(place) = recorder.place(folder, path) {
            recorder.make(place, true);
        }
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    unsafe { unlinkat(HERE, path, libc::AT_REMOVEDIR) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unsafe { unlinkat(HERE, path, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int {
    let make = || unsafe { syscall(libc::SYS_unlinkat, folder, path, flags) };
    call(make, |recorder, _| {
        let place = recorder.place(folder, path);
        recorder.unlinked(place);
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    unsafe { renameat(HERE, from, HERE, to) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
) -> c_int {
    let make = || unsafe { syscall(libc::SYS_renameat2, from_folder, from, to_folder, to, 0) };
    call(make, |recorder, _| {
        recorder.renamed(recorder.place(from_folder, from), recorder.place(to_folder, to));
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    unsafe { linkat(HERE, from, HERE, to, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn linkat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    let make = || unsafe { syscall(libc::SYS_linkat, from_folder, from, to_folder, to, flags) };
    call(make, |recorder, _| {
        recorder.linked(recorder.place(from_folder, from), recorder.place(to_folder, to));
    }) as c_int
}
