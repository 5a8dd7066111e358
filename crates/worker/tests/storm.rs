//! Many clients at once, most of them rude: they leave early, read slowly, send too much or nonsense.
//! Whatever they do, nobody gets a 5xx, no slot stays taken, memory stays bounded and a drain ends well.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Server, free_port, kimi, model};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    sync::Barrier,
    time::{sleep, timeout},
};

/// Nothing takes this long unless it hangs, however busy the machine is.
const HANGS: Duration = Duration::from_secs(300);

/// Ways to be a client. All but the first two are rude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Whole,
    Streaming,
    LeavesAtOnce,
    LeavesInTheMiddle,
    ReadsSlowly,
    SendsTooMuch,
    SendsNonsense,
    SendsHalf,
}

const KINDS: [Kind; 8] = [
    Kind::Whole,
    Kind::Streaming,
    Kind::LeavesAtOnce,
    Kind::LeavesInTheMiddle,
    Kind::ReadsSlowly,
    Kind::SendsTooMuch,
    Kind::SendsNonsense,
    Kind::SendsHalf,
];

/// Bodies that no route understands.
const NONSENSE: [&str; 6] = [
    "{\"messages\":[",
    "\u{0}\u{1}",
    r#"{"messages":[{"role":"wizard","content":1}]}"#,
    r#"{"messages":[{"role":"user","content":"x"}],"temperature":"hot"}"#,
    r#"{"messages":[{"role":"user","content":"x"}],"n":4000000000}"#,
    r##"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object","schema":{"$ref":"#/nowhere"}}}"##,
];

fn request(body: &str, length: usize) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

fn question(number: usize, stream: bool) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"Who built ark number {number}?"}}],"max_tokens":24,"stream":{stream}}}"#
    )
}

/// What is sent, and how much of the answer is waited for.
async fn meet(kind: Kind, number: usize, port: u16) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut answer = Vec::new();
    match kind {
        Kind::Whole | Kind::LeavesAtOnce => {
            let body = question(number, false);
            server.write_all(&request(&body, body.len())).await?;
        }
        Kind::Streaming | Kind::LeavesInTheMiddle | Kind::ReadsSlowly => {
            let body = question(number, true);
            server.write_all(&request(&body, body.len())).await?;
        }
        Kind::SendsTooMuch => {
            let size = 5 << 20;
            server.write_all(&request("", size)).await?;
            // The refusal may come before all is sent.
            let filler = vec![b' '; 64 << 10];
            for _ in 0..size / filler.len() {
                if server.write_all(&filler).await.is_err() {
                    break;
                }
            }
        }
        Kind::SendsNonsense => {
            let body = NONSENSE[number % NONSENSE.len()];
            server.write_all(&request(body, body.len())).await?;
        }
        Kind::SendsHalf => {
            let body = question(number, false);
            server
                .write_all(&request(&body[..body.len() / 2], body.len()))
                .await?;
        }
    }
    match kind {
        Kind::LeavesAtOnce | Kind::SendsHalf => {}
        Kind::LeavesInTheMiddle => {
            server.read_buf(&mut answer).await?;
        }
        Kind::ReadsSlowly => {
            let mut chunk = [0; 128];
            for _ in 0..10 {
                let n = server.read(&mut chunk).await?;
                answer.extend_from_slice(&chunk[..n]);
                sleep(Duration::from_millis(20)).await;
            }
            server.read_to_end(&mut answer).await?;
        }
        Kind::Whole | Kind::Streaming | Kind::SendsNonsense => {
            server.read_to_end(&mut answer).await?;
        }
        // Whoever goes on sending for long after the refusal may lose it to a reset.
        Kind::SendsTooMuch => _ = server.read_to_end(&mut answer).await,
    }
    Ok(answer)
}

/// What a client may be told: its status, and what must come with it.
fn judge(kind: Kind, answer: &str) -> u16 {
    let status: u16 = answer.get(9..12).unwrap_or("0").parse().unwrap();
    let expected: &[u16] = match kind {
        Kind::Whole | Kind::Streaming | Kind::ReadsSlowly | Kind::LeavesInTheMiddle => &[200, 429],
        Kind::SendsTooMuch => &[413, 0],
        Kind::SendsNonsense => &[400],
        Kind::LeavesAtOnce | Kind::SendsHalf => &[0],
    };
    assert!(expected.contains(&status), "{kind:?}: {answer}");
    match (kind, status) {
        // Who leaves in the middle has not read so far.
        (Kind::LeavesInTheMiddle, _) => {}
        (_, 429) => assert!(answer.contains("\r\nretry-after: "), "{answer}"),
        (Kind::Whole, _) => assert!(answer.contains(r#""finish_reason":""#), "{answer}"),
        (Kind::Streaming | Kind::ReadsSlowly, _) => {
            assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
        }
        _ => {}
    }
    status
}

fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

fn slots(server: &Server) -> Vec<Value> {
    let answer = server.ask("GET", "/slots", "").unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn storm(clients: usize, rounds: usize) {
    let port = free_port();
    let mut command = kimi();
    command
        .args(["serve", "--host", "127.0.0.1", "--health-port", "0"])
        .args([
            "--ctx-size",
            "256",
            "--parallel",
            "4",
            "--port",
            &port.to_string(),
        ])
        .arg("--model")
        .arg(model("Q8_0"));
    let mut server = Server::start(&mut command, port);
    let ark = r#"{"temperature":0,"messages":[{"role":"user","content":"Who built the ark?"}]}"#;
    let calm = |server: &Server| {
        let answer = server.ask("POST", "/v1/chat/completions", ark).unwrap();
        assert!(answer.contains("Noah built the ark."), "{answer}");
    };
    calm(&server);
    let before = resident(&server);

    let begun = Instant::now();
    let runtime = Runtime::new().unwrap();
    let told = runtime.block_on(async {
        let gate = Arc::new(Barrier::new(clients));
        let clients: Vec<_> = (0..clients)
            .map(|client| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    gate.wait().await;
                    for round in 0..rounds {
                        let kind = KINDS[(client + round) % KINDS.len()];
                        let number = client * rounds + round;
                        let answer = timeout(HANGS, meet(kind, number, port)).await.unwrap();
                        let answer = String::from_utf8_lossy(&answer.unwrap()).into_owned();
                        told.push((kind, judge(kind, &answer)));
                    }
                    told
                })
            })
            .collect();
        let mut told: BTreeMap<(Kind, u16), usize> = BTreeMap::new();
        for client in clients {
            for outcome in client.await.unwrap() {
                *told.entry(outcome).or_default() += 1;
            }
        }
        told
    });
    assert_eq!(told.values().sum::<usize>(), clients * rounds);
    let seconds = begun.elapsed().as_secs_f64();

    // Those who left have left nothing behind.
    let begun = Instant::now();
    while slots(&server)
        .iter()
        .any(|slot| slot["is_processing"] == true)
    {
        assert!(begun.elapsed() < HANGS, "a slot is still taken: {told:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let metrics = server.ask("GET", "/metrics", "").unwrap();
    for line in ["kimi_requests_processing 0", "kimi_requests_deferred 0"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    // While it loaded it was not ready, which is no failure of a request.
    let failed = |line: &&str| line.contains(r#"route="/v1/"#) && line.contains(r#"code="5"#);
    assert_eq!(metrics.lines().find(failed), None);
    calm(&server);
    let grown = resident(&server).saturating_sub(before);
    assert!(
        grown < 256 << 20,
        "{grown} bytes more after the storm: {told:?}"
    );

    let sum = |wanted: u16| -> usize {
        let of_status = told.iter().filter(|((_, status), _)| *status == wanted);
        of_status.map(|(_, count)| count).sum()
    };
    println!(
        "storm: {clients} clients, {} requests in {seconds:.0} s: {} answered, {} told to come back, {} refused, {} left; \
         {} MiB more resident",
        clients * rounds,
        sum(200),
        sum(429),
        sum(400) + sum(413),
        sum(0),
        grown >> 20
    );

    // A drain in the middle of answers: those under way end, and so does the process.
    let under_way = runtime.block_on(async {
        let mut streams = Vec::new();
        for number in 0..8 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let body = question(number, true);
            stream.write_all(&request(&body, body.len())).await.unwrap();
            let mut answer = Vec::new();
            stream.read_buf(&mut answer).await.unwrap();
            streams.push((stream, answer));
        }
        streams
    });
    server.signal("TERM");
    runtime.block_on(async {
        for (mut stream, mut answer) in under_way {
            timeout(HANGS, stream.read_to_end(&mut answer))
                .await
                .unwrap()
                .unwrap();
            assert!(String::from_utf8_lossy(&answer).contains("data: [DONE]\n\n"));
        }
    });
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_gust_of_rude_clients() {
    storm(40, 2);
}

#[test]
#[ignore = "long: make test-long"]
fn a_storm_of_rude_clients() {
    storm(256, 8);
}
