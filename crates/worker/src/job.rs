//! How a Job's command ends: the exit code that says whether trying again can help, the message on standard error, and
//! the JSON in the termination log, which is all that the operator sees. Knows no command.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use sizing::InspectReport;

/// Trying again may help.
const TRANSIENT: u8 = 1;
/// Trying again cannot help; the Job's pod failure policy stops at this code.
const PERMANENT: u8 = 2;

/// Why a Job's command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct JobError {
    /// One CamelCase word, fit for a condition's reason.
    pub(crate) reason: String,
    /// What happened and what to do next, in words.
    pub(crate) message: String,
    /// The same attempt must fail again until the spec or the source changes.
    pub(crate) permanent: bool,
}

impl JobError {
    pub(crate) fn permanent(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            permanent: true,
        }
    }

    pub(crate) fn transient(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            permanent: false,
        }
    }
}

impl From<fetch::Error> for JobError {
    fn from(error: fetch::Error) -> Self {
        Self {
            reason: error.reason().to_owned(),
            message: error.to_string(),
            permanent: error.permanent(),
        }
    }
}

/// The last act of a failed command.
pub(crate) fn fail(error: &JobError, output: Option<&Path>) -> ExitCode {
    let report = InspectReport::error(&error.reason, &error.message);
    if let Some(path) = output {
        write(path, &report.to_json());
    }
    // Nothing is left to do when standard error is closed.
    let _ = writeln!(
        std::io::stderr(),
        "error: {}: {}",
        error.reason,
        error.message
    );
    ExitCode::from(if error.permanent {
        PERMANENT
    } else {
        TRANSIENT
    })
}

/// Writes a report where the Job's pod keeps its termination message.
pub(crate) fn write(path: &Path, report: &str) {
    if let Err(error) = std::fs::write(path, report) {
        tracing::error!(path = %path.display(), %error, "cannot write the report");
    }
}

/// Resolves when this process is asked to end. A container's first process ignores signals that it does not handle.
pub(crate) async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the default action ends the process.
        _ => std::future::pending().await,
    }
}
