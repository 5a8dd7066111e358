//! A fetch that is killed with -9 again and again, at random moments, by a hub that also refuses, stalls, cuts and
//! corrupts: how much comes twice, and that no bad byte is ever under a final name. `KIMI_KILLS` says how many kills
//! (5), `KIMI_SEED` which moments and faults.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use fetch::ledger;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testhub::faults::{Fault, Faults, Place, Rule};

use crate::common::{SHARD, Scene, TOTAL, content, rule, shard_path};
use crate::processes::{CONNECTIONS, command};

/// Bytes that a stalled or cut answer may have sent.
const BEFORE_A_CUT: u64 = 200_000;
/// A whole fetch takes about three seconds at this pace, and a kill comes at any moment of it.
const PACE: u64 = 3_000_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// Bytes of pieces that the ledgers say are on the disk.
fn recorded(dest: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dest.join(".kimi")) else {
        return 0;
    };
    let piece = ledger::piece_bytes(SHARD as u64, CONNECTIONS);
    let ledgers = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let pieces = ledgers.flat_map(|text| {
        let numbers = text.lines().filter_map(|line| line.strip_prefix("piece "));
        numbers
            .filter_map(|number| number.parse::<u64>().ok())
            .map(|number| piece.min(SHARD as u64 - number * piece))
            .collect::<Vec<_>>()
    });
    pieces.sum()
}

/// Whatever has its final name must be what the hub has, whole.
fn assert_no_bad_byte(dest: &Path) {
    for no in 1..=3 {
        if let Ok(got) = fs::read(dest.join(shard_path(no))) {
            assert!(got == content(no as u64, SHARD), "shard {no} is not whole");
        }
    }
}

/// What the hub does wrong in one round, and the bytes that each time may cost.
fn trouble(rng: &mut StdRng) -> (Vec<Rule>, u64) {
    let busy = |on| {
        let fault = Fault::Status {
            code: 429,
            retry_after: Some(1),
            rate_limit: None,
        };
        rule(on, fault, 1)
    };
    let after_bytes = rng.random_range(0..BEFORE_A_CUT);
    match rng.random_range(0..7) {
        0 => (vec![busy(Place::Cdn)], 0),
        1 => (vec![busy(Place::Resolve)], 0),
        2 => {
            let stall = rule(Place::Cdn, Fault::Stall { after_bytes }, 2);
            (vec![stall], after_bytes)
        }
        3 => {
            let cut = rule(Place::Cdn, Fault::Cut { after_bytes }, 3);
            (vec![cut], after_bytes)
        }
        4 => (vec![rule(Place::Cdn, Fault::Corrupt, 1)], SHARD as u64),
        _ => (Vec::new(), 0),
    }
}

/// How often the rules have been used.
fn used(given: &[Rule], left: &[Rule]) -> u64 {
    let times = |rules: &[Rule]| rules.iter().filter_map(|rule| rule.count).sum::<u32>();
    u64::from(times(given) - times(left))
}

/// Lets the child go on until a random number of pieces is recorded and a random while has passed, or until it ends.
async fn kill_somewhere(child: &mut Child, dest: &Path, rng: &mut StdRng) -> bool {
    let piece = ledger::piece_bytes(SHARD as u64, CONNECTIONS);
    let wanted = recorded(dest) + piece * rng.random_range(0..4);
    let pause = Duration::from_millis(rng.random_range(0..400));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut reached = None;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "a fetch failed: {status}");
            return false;
        }
        assert!(Instant::now() < deadline, "no progress for a minute");
        if reached.is_none() && recorded(dest).min(TOTAL) >= wanted.min(TOTAL) {
            reached = Some(Instant::now());
        }
        if reached.is_some_and(|at| at.elapsed() >= pause) {
            // SIGKILL: nothing in the process can tidy up.
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_cost_at_most_a_piece_for_each_connection() {
    let (kills, seed) = (number("KIMI_KILLS", 5), number("KIMI_SEED", 1));
    let mut rng = StdRng::seed_from_u64(seed);
    let bound = CONNECTIONS as u64 * ledger::piece_bytes(SHARD as u64, CONNECTIONS);
    let mut scene = Scene::new().await;
    let (mut killed, mut whole) = (0, 0);
    let (mut again, mut worst, mut corrupted) = (0, 0, 0);
    // Corrupt bytes are noticed when their shard is complete, which may be rounds later.
    let mut unnoticed = 0;
    while killed < kills {
        let (rules, cost) = trouble(&mut rng);
        let corrupt = rules.iter().any(|rule| rule.fault == Fault::Corrupt);
        scene.hub.reset();
        scene.hub.set_faults(Faults {
            bytes_per_second: Some(PACE),
            rules: rules.clone(),
        });
        let before = recorded(scene.dest.path());
        let mut child = command(&scene).spawn().unwrap();
        let died = kill_somewhere(&mut child, scene.dest.path(), &mut rng).await;
        let served = scene.hub.stats().bytes_served;
        let used = used(&rules, &scene.hub.faults().rules);
        assert_no_bad_byte(scene.dest.path());
        if corrupt {
            (unnoticed, corrupted) = (unnoticed + used, corrupted + used);
        }
        if died {
            killed += 1;
        } else {
            scene.assert_whole();
            whole += 1;
        }
        let kept = match died {
            true => recorded(scene.dest.path()),
            false => TOTAL,
        };
        let mut lost = (served + before).saturating_sub(kept);
        again += lost;
        let plain = u64::from(died) * bound + if corrupt { 0 } else { used * cost };
        while lost > plain && unnoticed > 0 {
            unnoticed -= 1;
            lost = lost.saturating_sub(SHARD as u64);
        }
        assert!(
            lost <= plain,
            "kill {killed} of seed {seed}: {lost} bytes lost, at most {plain} expected after {rules:?}"
        );
        worst = worst.max(lost);
        if !died {
            scene.dest = tempfile::tempdir().unwrap();
            unnoticed = 0;
        }
    }
    scene.hub.reset();
    let status = command(&scene).status().unwrap();
    assert!(status.success());
    scene.assert_whole();
    eprintln!(
        "kills survived: {killed} of {kills} (seed {seed}), {} whole fetches of {TOTAL} bytes, {corrupted} corrupt \
         answers, 0 bad bytes accepted; {again} bytes came again, at most {worst} for one kill \
         (bound {bound}: {CONNECTIONS} connections, one piece each)",
        whole + 1
    );
}
