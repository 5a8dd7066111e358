//! Python clients that others wrote, to judge our servers by: each gets a virtual environment in the build cache,
//! made once. It must not know what the clients do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Set where a missing client is a failure and no reason to skip a test.
pub const REQUIRED: &str = "KIMI_REQUIRE_CLIENTS";

/// The Python that has this client, as pip writes it: `openai==3.57.0`. Without Python or PyPI there is none, which
/// it says on stderr, so that the test that wanted it may end.
///
/// # Errors
/// There is none, and [`REQUIRED`] is set.
#[allow(clippy::print_stderr)]
pub fn python(client: &str) -> Result<Option<PathBuf>> {
    match install(client) {
        Ok(python) => Ok(Some(python)),
        Err(error) if std::env::var_os(REQUIRED).is_some() => {
            Err(error.context(format!("{REQUIRED} is set, and there is no {client}")))
        }
        Err(error) => {
            eprintln!("SKIPPED: no {client} to judge by: {error:#}");
            Ok(None)
        }
    }
}

fn install(client: &str) -> Result<PathBuf> {
    let name = client.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let venv = cache().join(format!("venv-{name}"));
    fs::create_dir_all(&venv).with_context(|| venv.display().to_string())?;
    // Tests of several checkouts may come here at the same time.
    let lock = File::create(venv.join("lock"))?;
    lock.lock()?;
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            client,
        ]);
        run(&mut pip)?;
        File::create(done)?;
    }
    Ok(python)
}

fn cache() -> PathBuf {
    let home = || {
        let home = std::env::var_os("HOME").unwrap_or_default();
        Path::new(&home).join(".cache/kimi-operator")
    };
    std::env::var_os("KIMI_CACHE").map_or_else(home, PathBuf::from)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status();
    let works = status.is_ok_and(|status| status.success());
    ensure!(works, "`{command:?}` failed");
    Ok(())
}
