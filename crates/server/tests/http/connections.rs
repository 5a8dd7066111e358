//! Connections and the drain over real sockets. Where a limit takes long, the clock is paused: it
//! then jumps to the next timer whenever nothing else can run.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use server::{App, conn::Drained};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::fake;

const HOUR: Duration = Duration::from_secs(3600);

async fn serve(app: Arc<App>, router: Router) -> (SocketAddr, JoinHandle<Drained>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        tokio::spawn(server::conn::serve(listener, router, app, HOUR)),
    )
}

fn request(body: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(end) {
            let mut chunk = [0; 4096];
            let n = self.0.read(&mut chunk).await.unwrap();
            assert!(
                n > 0,
                "closed before {end:?}: {}",
                String::from_utf8_lossy(&seen)
            );
            seen.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8(seen).unwrap()
    }

    /// The rest up to an orderly end; a reset fails the test.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).await.unwrap();
        rest
    }
}

#[tokio::test]
async fn a_drain_resets_nobody() {
    let (app, router, mut requests) = fake::ready();
    let (address, server) = serve(Arc::clone(&app), router).await;
    let whole = request(r#"{"prompt":"whole"}"#);
    let stream = request(r#"{"prompt":"stream","stream":true}"#);

    // One client between two requests, one in the middle of a stream.
    let mut keep_alive = Client::connect(address).await;
    keep_alive.send(&whole).await;
    fake::answer(&requests.recv().await.unwrap(), &["one"]).await;
    let first = keep_alive.until("}}").await;
    assert!(
        first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"),
        "{first}"
    );
    let mut streaming = Client::connect(address).await;
    streaming.send(&stream).await;
    let under_way = requests.recv().await.unwrap();
    fake::say(&under_way, "begun").await;
    streaming.until("begun").await;

    app.drain();
    sleep(Duration::from_millis(100)).await;
    assert!(!server.is_finished());

    // A new connection is still served, and told to leave.
    let mut fresh = Client::connect(address).await;
    fresh.send(&whole).await;
    fake::answer(&requests.recv().await.unwrap(), &["two"]).await;
    let answer = fresh.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );

    // So is the old one, on its next request.
    keep_alive.send(&whole).await;
    fake::answer(&requests.recv().await.unwrap(), &["three"]).await;
    let answer = keep_alive.rest().await;
    assert!(
        answer.contains("connection: close") && answer.contains("three"),
        "{answer}"
    );

    // The stream goes on as long as it takes, and its connection lives on behind it.
    fake::say(&under_way, "ended").await;
    fake::finish(&under_way, 2).await;
    let tail = streaming.until("[DONE]\n\n\r\n0\r\n\r\n").await;
    assert!(tail.contains("ended"), "{tail}");
    assert!(
        !server.is_finished(),
        "a client that never heard 'close' may still send"
    );
    streaming.send(&whole).await;
    fake::answer(&requests.recv().await.unwrap(), &["four"]).await;
    assert!(streaming.rest().await.contains("connection: close"));

    drop((keep_alive, fresh, streaming));
    let drained = timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained { cut: 0 });
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_without_connections_ends_at_once() {
    let (app, router) = fake::talkative(&[]);
    let (_address, server) = serve(Arc::clone(&app), router).await;
    app.drain();
    let drained = timeout(Duration::from_secs(1), server)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained { cut: 0 });
}

#[tokio::test(start_paused = true)]
async fn idle_connections_hold_a_drain_for_ten_seconds() {
    let (app, router) = fake::talkative(&[]);
    let (address, server) = serve(Arc::clone(&app), router).await;
    let mut idle = Client::connect(address).await;
    sleep(Duration::from_millis(500)).await;
    app.drain();
    sleep(Duration::from_secs(8)).await;
    assert!(!server.is_finished());
    sleep(Duration::from_secs(4)).await;
    assert_eq!(server.await.unwrap(), Drained { cut: 0 });
    assert_eq!(idle.rest().await, "", "an orderly end");
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_up_after_its_timeout() {
    let (app, router, mut requests) = fake::ready();
    let (address, server) = serve(Arc::clone(&app), router).await;
    let mut stuck = Client::connect(address).await;
    stuck.send(&request(r#"{"prompt":"x"}"#)).await;
    let _never_answered = requests.recv().await.unwrap();
    app.drain();
    sleep(HOUR - Duration::from_secs(10)).await;
    assert!(!server.is_finished());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(server.await.unwrap(), Drained { cut: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_trickled_head_is_cut_but_idleness_is_not() {
    let (app, router) = fake::talkative(&["x"]);
    let (address, _server) = serve(app, router).await;
    let mut patient = Client::connect(address).await;
    let mut trickling = Client::connect(address).await;
    trickling.send("POST /v1/compl").await;
    sleep(Duration::from_secs(20)).await;
    trickling.send("etions").await;
    sleep(Duration::from_secs(15)).await;
    let mut rest = Vec::new();
    _ = trickling.0.read_to_end(&mut rest).await;
    assert!(rest.is_empty());

    sleep(Duration::from_secs(500)).await;
    patient.send(&request(r#"{"prompt":"x"}"#)).await;
    assert!(patient.until("}}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels() {
    for body in [r#"{"prompt":"x"}"#, r#"{"prompt":"x","stream":true}"#] {
        let (app, router, mut requests) = fake::ready();
        let (address, _server) = serve(app, router).await;
        let mut client = Client::connect(address).await;
        client.send(&request(body)).await;
        let asked = requests.recv().await.unwrap();
        drop(client);
        timeout(Duration::from_secs(5), asked.events.closed())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_refused_upload_is_answered_not_reset() {
    let (app, router) = fake::talkative(&[]);
    let (address, _server) = serve(app, router).await;
    let mut client = Client::connect(address).await;
    let size = 8 << 20;
    client
        .send(&format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        ))
        .await;
    client.0.write_all(&vec![b' '; size]).await.unwrap();
    assert!(client.rest().await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn the_health_port_has_its_own_thread() {
    let (app, _router) = fake::talkative(&[]);
    let address = server::health::spawn(app, "127.0.0.1:0".parse().unwrap()).unwrap();
    // Blocking on purpose: this test's runtime is stuck, and the probes answer nevertheless.
    let mut client = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(
        &mut client,
        b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    let answer = std::io::read_to_string(client).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("ready"),
        "{answer}"
    );
}
