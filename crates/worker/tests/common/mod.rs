//! The `kimi` binary as a process with the committed model. Knows the command line and HTTP only.
// Each test that includes this file uses another part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

pub(crate) fn model(quant: &str) -> PathBuf {
    let dir = testdata()
        .join("hub/kimi-operator/Kimi-Tiny-GGUF")
        .join(quant);
    dir.join(format!("Kimi-Tiny-{quant}-00001-of-00003.gguf"))
}

pub(crate) fn kimi() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kimi"));
    for variable in [
        "HF_ENDPOINT",
        "HF_TOKEN",
        "QUANT_TYPE",
        "KIMI_ARTIFACT",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A port nobody listens on; another process could take it meanwhile, but the range is wide.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A serving process, ended with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server
            .ask("GET", "/health", "")
            .is_some_and(|answer| answer.contains("200 OK"))
        {
            assert_eq!(
                server.child.try_wait().unwrap(),
                None,
                "ended before it was ready"
            );
            assert!(Instant::now() < deadline, "not ready in time");
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Option<String> {
        ask(self.port, method, path, body)
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Most tests have ended it already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub(crate) fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
