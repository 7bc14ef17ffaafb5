//! The binary: arguments in, exit code out. Signals and the runtime are set up here.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use nora::wiring::Recovery;
use nora::{telemetry, wiring};
use nora_cli::{Cli, ConsentArgs, JoinArgs, NodeVerb};
use nora_config::{Loaded, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

/// Reads and fsyncs run on blocking threads; that many may wait for the disk at once.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long tasks and reads may take to end once the node has stopped.
const TASKS_END_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    nora_cli::run(Cli::of_process(), |verb, loaded| {
        wiring::keep_files_private();
        match verb {
            NodeVerb::Serve(join) => serve(loaded, join),
            NodeVerb::Check => check(loaded),
            NodeVerb::Recover(consent) => recover(loaded, consent),
        }
    })
}

/// Checks a node's data: findings on stdout, a line each; the exit code tells whether there are any.
fn check(loaded: Loaded) -> ExitCode {
    let checked = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| {
            runtime.block_on(wiring::check(&loaded.config)).map_err(|error| chain(&error))
        });
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    match checked {
        Ok(checked) => {
            // Whoever closed the pipe wants to hear no more.
            for finding in &checked.findings {
                let _ = writeln!(out, "{finding}");
            }
            let (rows, blobs) = (checked.rows, checked.blobs);
            let found = checked.findings.len();
            let _ = writeln!(err, "{rows} rows and {blobs} blobs checked, {found} findings");
            if checked.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            let _ = writeln!(err, "error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Lets a stopped node go on without its cluster: what it has goes to stdout, what is done about it to stderr.
fn recover(loaded: Loaded, consent: ConsentArgs) -> ExitCode {
    let failed = |message: String| {
        let _ = writeln!(std::io::stderr(), "error: {message}");
        ExitCode::FAILURE
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("cannot start: {error}")),
    };
    let recovery = match runtime.block_on(Recovery::look(&loaded.config)) {
        Ok(recovery) => recovery,
        Err(error) => return failed(chain(&error)),
    };
    let _ = std::io::stdout().write_all(recovery.describe().as_bytes());
    let node = recovery.node().0;
    if !recovery.found().is_alone(recovery.node()) {
        let what = format!(
            "let node {node} go on alone, and lose what only other nodes have; they must never be started again"
        );
        match consent.allows(&what) {
            Ok(true) => {}
            Ok(false) => return ExitCode::SUCCESS,
            Err(code) => return code,
        }
    }
    match runtime.block_on(recovery.carry_out()) {
        Ok(recovered) => {
            let _ = std::io::stderr().write_all(recovered.describe(node).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => failed(chain(&error)),
    }
}

/// Runs a node until SIGTERM or SIGINT; a second one ends it at once.
fn serve(loaded: Loaded, join: JoinArgs) -> ExitCode {
    nora::memory::limit_arenas();
    let log = &loaded.config.log;
    let format = match log.format {
        LogFormat::Auto => telemetry::Format::automatic(),
        LogFormat::Pretty => telemetry::Format::Pretty,
        LogFormat::Json => telemetry::Format::Json,
    };
    let _logging = telemetry::start(format, log.level.as_str());
    if join.token_is_exposed {
        tracing::warn!(
            "the join token is an argument, so other users of this machine can read it: use \
             --join-token-file or NORA_JOIN_TOKEN"
        );
    }
    nora::descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("nora")
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome =
                runtime.block_on(async { wiring::run(loaded, join, stop_signal()).await });
            // Tasks hold the stores open: they end before the process does, because RocksDB's threads must not outlive what
            // it keeps for the whole process. Whatever still runs on blocking threads is a read that nobody waits for.
            runtime.shutdown_timeout(TASKS_END_TIMEOUT);
            outcome.map_err(|error| chain(&error))
        }
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// An error with everything that led to it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Completes at the first SIGTERM or SIGINT. From then on the next one ends the process.
async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be watched: the node can only be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("stopped at once: running transfers were cut off");
        std::process::exit(130);
    });
}
