//! The binary: arguments in, exit code out. Signals and the runtime are set up here.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use nora::cli::{self, Cli};
use nora::config::{Loaded, LogFormat};
use nora::{telemetry, wiring};
use tokio::signal::unix::{SignalKind, signal};

/// Reads and fsyncs run on blocking threads; that many may wait for the disk at once.
const BLOCKING_THREADS_MAX: usize = 128;

fn main() -> ExitCode {
    cli::run(Cli::parse(), serve)
}

/// Runs a node until SIGTERM or SIGINT; a second one ends it at once.
fn serve(loaded: Loaded) -> ExitCode {
    let log = &loaded.config.log;
    let format = match log.format {
        LogFormat::Auto => telemetry::Format::automatic(),
        LogFormat::Pretty => telemetry::Format::Pretty,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::start(format, log.level.as_str());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("nora")
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome =
                runtime.block_on(async { wiring::run(loaded.config, stop_signal()).await });
            // Whatever still runs on blocking threads is a read that nobody waits for.
            runtime.shutdown_background();
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
