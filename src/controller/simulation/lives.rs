//! Random lives: edits, reverts, deletions by hand, bad weights, a hub that fails, upgrades, and an operator that dies
//! before any of its writes. However a life went, it must end where a fresh apply of its last spec ends. Seeded: a
//! failure names its seed and what happened, and `KIMI_LIVES=10000` runs more of them.

use spec::{EngineUpdate, KimiModelSpec, Strategy};

use super::*;

/// Lives that every test run goes through, and the variable that asks for more.
const LIVES: u64 = 40;
const MORE: &str = "KIMI_LIVES";
const QUANTS: [&str; 3] = ["Q4_K_M", "Q5_0", "Q8_0"];

/// SplitMix64: the same lives on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let sides = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.below(sides)).unwrap()].clone()
    }
}

/// Changes one field that the planner acts on.
fn edit(dice: &mut Dice, spec: &mut KimiModelSpec) -> String {
    match dice.below(10) {
        0..=3 => spec.quant = Some(dice.pick(&QUANTS).to_owned()),
        4 => spec.memory = dice.pick(&[None, Some("8Gi".to_owned()), Some("20Gi".to_owned())]),
        5 => spec.serving.context_length = dice.pick(&[None, Some(1024), Some(4096), Some(8192)]),
        6 => {
            spec.hardware = dice.pick(&[spec::HardwareName::Cpu, spec::HardwareName::T4]);
            spec.serving.cpu_fallback =
                dice.pick(&[spec::CpuFallback::Allow, spec::CpuFallback::Deny]);
        }
        7 => {
            spec.rollout.strategy =
                dice.pick(&[Strategy::Staged, Strategy::Staged, Strategy::Replace]);
            spec.rollout.max_outage_seconds = dice.pick(&[None, Some(0), Some(20)]);
        }
        8 => spec.suspend = !spec.suspend,
        _ => spec.serving.replicas = 1 - spec.serving.replicas,
    }
    format!(
        "edit to {:?} {:?} {:?} {} {:?} {:?} suspend={} replicas={}",
        spec.quant,
        spec.memory,
        spec.serving.context_length,
        spec.hardware,
        spec.serving.cpu_fallback,
        spec.rollout,
        spec.suspend,
        spec.serving.replicas
    )
}

/// What somebody else does to the cluster.
fn mishap(dice: &mut Dice, cluster: &mut Cluster) -> String {
    match dice.below(9) {
        0 => {
            cluster.service = None;
            "the Service is deleted".to_owned()
        }
        1 => {
            let names: Vec<String> = cluster.deployments.keys().cloned().collect();
            if !names.is_empty() {
                cluster.deployments.remove(&dice.pick(&names));
            }
            format!("one of {names:?} is deleted")
        }
        2 => {
            cluster.jobs.clear();
            "every Job is deleted".to_owned()
        }
        3 => {
            cluster.model.status = None;
            cluster.lose_pods();
            "every pod is lost".to_owned()
        }
        4 => {
            cluster.broken = [dice.pick(&QUANTS).to_owned()].into();
            cluster.exit_code = dice.pick(&[1, 2]);
            format!(
                "{:?} cannot serve, exit code {}",
                cluster.broken, cluster.exit_code
            )
        }
        5 => {
            cluster.broken.clear();
            "every quant can serve".to_owned()
        }
        6 => {
            cluster.outages = 3;
            "the hub fails three times".to_owned()
        }
        7 => {
            let image = format!("registry.example/kimi-worker:{}", dice.below(1000));
            cluster.settings.worker_image = image;
            format!("upgrade to {}", cluster.settings.worker_image)
        }
        _ => {
            let at = cluster.writes + u32::try_from(dice.below(4)).unwrap();
            cluster.dies_before = Some(at);
            format!("the operator dies before write {at}")
        }
    }
}

fn life(seed: u64) -> (Cluster, Vec<String>) {
    let mut dice = Dice(seed);
    let mut cluster = cluster(MINIMAL);
    let mut log = Vec::new();
    if dice.below(2) == 0 {
        let target = super::serving("Q4_K_M");
        let request = testing::assessed(&target.see())
            .target
            .unwrap()
            .memory_request;
        cluster.nodes[0].1 = request * 3 / 2;
        log.push("one server fits".to_owned());
    }
    let mut specs = vec![cluster.model.spec.0.clone()];
    for _ in 0..dice.below(10) + 2 {
        let happened = match dice.below(4) {
            0 => mishap(&mut dice, &mut cluster),
            1 => {
                let earlier = dice.pick(&specs);
                cluster.edit(|spec| *spec = earlier.clone());
                format!("revert to {:?} {:?}", earlier.quant, earlier.rollout)
            }
            _ => {
                let mut words = String::new();
                cluster.edit(|spec| words = edit(&mut dice, spec));
                specs.push(cluster.model.spec.0.clone());
                words
            }
        };
        log.push(happened);
        for _ in 0..dice.below(12) {
            cluster.reconcile();
            cluster.tick();
        }
        // Dead for a while, then back with no memory.
        cluster.dies_before = None;
    }
    (cluster, log)
}

/// Ends a life: what is broken is mended, and the spec is one that can serve, on the operator's own version.
fn mend(cluster: &mut Cluster) {
    cluster.broken.clear();
    cluster.outages = 0;
    cluster.edit(|spec| {
        spec.suspend = false;
        spec.serving.replicas = 1;
        spec.serving.context_length = None;
        spec.serving.cpu_fallback = spec::CpuFallback::Allow;
        spec.rollout.max_outage_seconds = None;
        spec.rollout.engine_update = EngineUpdate::Automatic;
    });
}

#[test]
fn every_life_ends_where_a_fresh_apply_ends() {
    let lives = std::env::var(MORE)
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(LIVES);
    for seed in 0..lives {
        let (mut lived, log) = life(seed);
        mend(&mut lived);
        let decision = lived.settle(400);
        let story = || format!("seed {seed}:\n  {}", log.join("\n  "));
        assert_eq!(
            decision.step,
            Step::Serving,
            "{}\n{}",
            decision.message,
            story()
        );

        let mut fresh = cluster(MINIMAL);
        fresh.nodes = lived.nodes.clone();
        fresh.settings = lived.settings.clone();
        fresh.model.spec = lived.model.spec.clone();
        assert_eq!(fresh.settle(400).step, Step::Serving);
        assert_eq!(lived.essence(), fresh.essence(), "{}", story());
        let writes = lived.writes;
        for _ in 0..5 {
            lived.tick();
            lived.reconcile();
        }
        assert_eq!(
            lived.writes,
            writes,
            "an idle operator writes nothing; {}",
            story()
        );
    }
}
