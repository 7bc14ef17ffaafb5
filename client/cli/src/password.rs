//! The password of an account that is made or changed: from a file, from stdin, or typed twice without being shown.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use nora_client::Secret;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::connection::read_stdin;
use super::failure::{Failure, say_note};
use nora_config::SecretSource;

const PASSWORD_BYTES_MAX: u64 = 4096;
const CTRL_C: u8 = 3;

/// Where the account's password comes from. In the commands that have them, these options stand where others have
/// those of the caller's own password.
#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// A file that holds the account's password; without it, you are asked for one on the terminal.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the account's password from stdin.
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordArgs {
    /// Whether an option says where it is.
    pub(crate) fn is_given(&self) -> bool {
        self.password_file.is_some() || self.password_stdin
    }

    /// The password.
    pub(crate) fn read(&self, name: &str) -> Result<Secret, Failure> {
        let password = match &self.password_file {
            Some(path) => SecretSource::File(path.clone()).read()?,
            None if self.password_stdin => read_stdin("password")?,
            None => ask_twice(name)?,
        };
        if password.is_empty() {
            return Err(Failure::Usage {
                message: format!("the password of {name} is empty"),
                hint: "choose one of 8 characters or more",
            });
        }
        Ok(Secret::new(password))
    }
}

fn ask_twice(name: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage {
            message: format!("nobody is there to type the password of {name}"),
            hint: "use --password-file or --password-stdin",
        });
    }
    let ask = |prompt: &str| -> Result<String, Failure> {
        let answer = hidden_line(io::stdin(), io::stdin().lock(), io::stderr(), prompt)
            .map_err(|source| Failure::Io { step: "ask for the password".into(), source })?;
        answer.ok_or_else(|| {
            say_note("nothing was changed");
            Failure::Told
        })
    };
    let password = ask(&format!("New password of {name}: "))?;
    if ask("The same again: ")? != password {
        return Err(Failure::Usage {
            message: "the two passwords are not the same, so nothing was changed".into(),
            hint: "type the same password twice",
        });
    }
    Ok(password)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Hidden<T> {
    fn new(terminal: T) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        // With signals on, Ctrl-C would end the program and leave the terminal mute. So it ends the line.
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(&terminal, OptionalActions::Now, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for Hidden<T> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Asks for a line that the terminal does not show; none if it was broken off.
fn hidden_line(
    terminal: impl AsFd,
    input: impl Read,
    mut output: impl Write,
    prompt: &str,
) -> io::Result<Option<String>> {
    let hidden = Hidden::new(terminal)?;
    // Whoever sees the prompt is not shown any more.
    write!(output, "{prompt}")?;
    output.flush()?;
    let line = read_line(input);
    drop(hidden);
    writeln!(output)?;
    line
}

fn read_line(input: impl Read) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    for byte in io::BufReader::with_capacity(1, input).bytes() {
        match byte? {
            b'\n' => break,
            CTRL_C => return Ok(None),
            _ if line.len() as u64 >= PASSWORD_BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
            }
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8(line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))?;
    Ok(Some(line.trim_end_matches('\r').to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};

    use super::*;

    /// A terminal: the end that a person has, and the one that the program has.
    fn terminal() -> (File, File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let name = ptsname(&outer, Vec::new()).unwrap().into_string().unwrap();
        (outer.into(), OpenOptions::new().read(true).write(true).open(name).unwrap())
    }

    /// What a person sees who waits for the prompt and types, what the program gets, and whether the terminal is as
    /// it was.
    fn typed(keys: &str) -> (String, Option<String>, bool) {
        let (mut outer, inner) = terminal();
        let before = tcgetattr(&inner).unwrap().local_modes;
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| hidden_line(&inner, &inner, &inner, "Password: ").unwrap());
            let mut seen = Vec::new();
            let mut part = [0; 64];
            while !String::from_utf8_lossy(&seen).contains("Password: ") {
                let count = outer.read(&mut part).unwrap();
                seen.extend_from_slice(&part[..count]);
            }
            outer.write_all(keys.as_bytes()).unwrap();
            let answer = asking.join().unwrap();
            // What is written after it comes after all that was echoed.
            (&inner).write_all(b"END").unwrap();
            while !String::from_utf8_lossy(&seen).contains("END") {
                let count = outer.read(&mut part).unwrap();
                seen.extend_from_slice(&part[..count]);
            }
            (String::from_utf8(seen).unwrap(), answer)
        });
        let after = tcgetattr(&inner).unwrap().local_modes;
        (asked.0, asked.1, before == after)
    }

    #[test]
    fn what_is_typed_is_read_and_not_shown() {
        let (seen, answer, restored) = typed("hunter2\n");
        assert_eq!(answer.as_deref(), Some("hunter2"));
        assert_eq!((seen.as_str(), restored), ("Password: \r\nEND", true));
        // The keys that mend a line still do.
        assert_eq!(typed("hunterx\x7f2\n").1.as_deref(), Some("hunter2"));
        assert_eq!(typed("\n").1.as_deref(), Some(""));
    }

    #[test]
    fn breaking_off_leaves_the_terminal_as_it_was() {
        let (seen, answer, restored) = typed("hunt\x03");
        assert_eq!((answer, restored), (None, true));
        assert!(!seen.contains("hunt"), "{seen}");
    }

    #[test]
    fn a_file_is_read_without_its_line_end_and_must_not_be_empty() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let path = folder.path().join("pw");
            std::fs::write(&path, text).unwrap();
            PasswordArgs { password_file: Some(path), password_stdin: false }.read("alice")
        };
        assert_eq!(of("a b\n").unwrap().expose(), "a b");
        let empty = of("\n");
        assert!(empty.is_err(), "{empty:?}");
    }
}
