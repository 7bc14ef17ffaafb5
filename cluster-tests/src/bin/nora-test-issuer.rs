//! `nora-test-issuer`: the test issuer as a process, for tests that are not written in Rust.
//!
//! It prints one line of JSON when it is ready: `issuer`, and what GitHub would give a job, `request_url` and
//! `request_token`. It runs until it is ended, or until its standard input is closed if it is told to. A user's browser
//! or a real registry has no business with it: it signs whatever it is asked to.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use nora_cluster_tests::error::{During, Result};
use nora_cluster_tests::issuer::Issuer;

/// An OpenID issuer for tests.
#[derive(Debug, Parser)]
struct Args {
    /// A loopback address; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Ends when standard input is closed, and so with whoever started it.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nora-test-issuer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let issuer = Issuer::start(args.listen)?;
    let line = serde_json::json!({
        "issuer": issuer.url(),
        "request_url": issuer.request_url(),
        "request_token": issuer.request_token(),
    });
    writeln!(std::io::stdout(), "{line}").during(|| "write to standard output".into())?;
    if args.until_stdin_closes {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest).during(|| "read standard input".into())?;
        return Ok(());
    }
    loop {
        std::thread::park();
    }
}
