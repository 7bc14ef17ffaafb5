//! Asking before something is destroyed or put into force.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::failure::{Failure, say_note};

/// Leave to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ConsentArgs {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only tell what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl ConsentArgs {
    /// Whether to go on; the exit code if there is no going on because of that question.
    pub fn allows(&self, what: &str) -> Result<bool, ExitCode> {
        self.given(what).map_err(|failure| failure.report())
    }

    /// Whether to go on. Nobody to ask is an error; a dry run only tells.
    pub(crate) fn given(&self, what: &str) -> Result<bool, Failure> {
        if self.dry_run {
            say_note(&format!("would {what}"));
            return Ok(false);
        }
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::Usage {
                message: format!("nobody is there to confirm: about to {what}"),
                hint: "use --yes to go on without being asked, --dry-run to see what would be done",
            });
        }
        let ask = || -> io::Result<String> {
            let mut stderr = io::stderr().lock();
            write!(stderr, "About to {what}. Go on? [y/N] ")?;
            stderr.flush()?;
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            Ok(answer)
        };
        let answer =
            ask().map_err(|source| Failure::Io { step: "ask whether to go on".into(), source })?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(true),
            _ => {
                say_note("nothing was changed");
                Err(Failure::Told)
            }
        }
    }
}
