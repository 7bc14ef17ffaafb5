//! Commands as scripts and people run them: processes whose words and exit code are kept, with or without a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::node::Node;

/// What a command said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (0, ""));
        serde_json::from_str(&self.out).unwrap()
    }

    /// The words of the table's lines, its header left out.
    pub fn rows(&self) -> Vec<Vec<&str>> {
        self.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
    }
}

/// Where commands run: a folder of their own, so that no file of the person who runs the tests is read.
pub struct Shell {
    pub folder: tempfile::TempDir,
    pub address: String,
}

impl Shell {
    pub fn new() -> Self {
        // Where nobody listens, for all that must not ask.
        Self { folder: tempfile::tempdir().unwrap(), address: "http://127.0.0.1:1".into() }
    }

    pub fn with_node(config: &str) -> (Self, Node) {
        let shell = Self::new();
        std::fs::create_dir(shell.path("node")).unwrap();
        let node = Node::start_configured(&shell.folder.path().join("node/data"), config);
        let address = node.url.clone();
        (Self { address, ..shell }, node)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nora"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("NORA_ADDR", &self.address)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
    }
}

pub fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A terminal without a window: its two ends.
fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&outer).unwrap();
    unlockpt(&outer).unwrap();
    let name = ptsname(&outer, Vec::new()).unwrap();
    let inner = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(outer), inner)
}

/// Runs a command on a terminal of its own, where someone types `typed`; stdout is no part of it.
pub fn on_terminal(mut command: Command, typed: &str) -> Said {
    let (mut outer, inner) = terminal();
    outer.write_all(typed.as_bytes()).unwrap();
    command.stdin(inner.try_clone().unwrap()).stderr(inner).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // The command's copies of the inner end must be the last ones, or the outer end never comes to an end.
    drop(command);
    let mut err = Vec::new();
    let mut part = [0; 4096];
    loop {
        match outer.read(&mut part) {
            Ok(count) if count > 0 => err.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // With nobody left on the inner end, Linux reports an I/O error.
            _ => break,
        }
    }
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}
