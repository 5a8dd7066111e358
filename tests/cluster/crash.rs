//! Whole lives with one fault each, against the API server: every one must end as the life without a fault does.
//! `KIMI_LONG` leads them all, and goes on where it was interrupted, by the file that it names; otherwise a sample that
//! `KIMI_SEED` chooses.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use futures::{StreamExt, stream};
use kimi_operator::names::short_hash;

use crate::life::{Lab, Outcome};
use crate::plan::{self, Class, Plan};

/// Lives led side by side: each waits for controllers most of the time.
const SIDE_BY_SIDE: usize = 8;
/// Lives of each class in the sample.
const SAMPLE: usize = 2;

/// What was found out about a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Survived,
    /// The write it aims at never came in that run.
    NotReached,
    Differs(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_the_same_state() {
    let Some(lab) = Lab::start().await else {
        return;
    };
    let whole = lab.lead("whole", &Plan::nothing(), None).await.unwrap();
    // The comparison itself: a second life without a fault is the same life.
    lab.lead("again", &Plan::nothing(), Some(&whole))
        .await
        .unwrap();
    let plans = plan::all(&whole);
    let long =
        std::env::var_os("KIMI_LONG").map(|directory| PathBuf::from(directory).join("crash.tsv"));
    let (known, chosen) = match &long {
        Some(file) => {
            let known = recorded(file);
            let missing = |plan: &Plan| !known.contains(&plan.to_string());
            let left: Vec<Plan> = plans.iter().filter(|plan| missing(plan)).cloned().collect();
            (known, left)
        }
        None => (BTreeSet::new(), sample(&plans)),
    };
    eprintln!(
        "{} writes in a life, {} faults, {} known to be survived, {} to go",
        whole.writes.len(),
        plans.len(),
        known.len(),
        chosen.len()
    );
    let lives = stream::iter(chosen.iter().enumerate())
        .map(|(index, plan)| judge(&lab, index, plan, &whole))
        .buffer_unordered(SIDE_BY_SIDE);
    let mut counts: BTreeMap<Class, (usize, usize)> = BTreeMap::new();
    for plan in plans
        .iter()
        .filter(|plan| known.contains(&plan.to_string()))
    {
        let count = counts.entry(plan.class().unwrap()).or_default();
        *count = (count.0 + 1, count.1 + 1);
    }
    let mut bad = Vec::new();
    let mut unreached = 0;
    let mut lives = std::pin::pin!(lives);
    while let Some((plan, verdict)) = lives.next().await {
        let count = counts.entry(plan.class().unwrap()).or_default();
        match verdict {
            Verdict::NotReached => unreached += 1,
            Verdict::Survived => {
                *count = (count.0 + 1, count.1 + 1);
                record(long.as_ref(), plan);
            }
            Verdict::Differs(how) => {
                count.1 += 1;
                eprintln!("NOT SURVIVED {plan}\n{how}");
                bad.push(plan.to_string());
            }
        }
    }
    for class in Class::ALL {
        let (survived, tried) = counts.get(&class).copied().unwrap_or_default();
        eprintln!("{class}: {survived} of {tried}");
    }
    if unreached > 0 {
        eprintln!("writes that did not come again: {unreached}");
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

async fn judge<'a>(
    lab: &Lab,
    index: usize,
    plan: &'a Plan,
    whole: &Outcome,
) -> (&'a Plan, Verdict) {
    let namespace = format!("life-{index}-{}", short_hash(&plan.to_string()));
    let verdict = match lab.lead(&namespace, plan, Some(whole)).await {
        Ok(outcome) if outcome.fired => Verdict::Survived,
        Ok(_) => Verdict::NotReached,
        Err(how) => Verdict::Differs(how),
    };
    (plan, verdict)
}

/// Some plans of each class, other ones for another seed.
fn sample(plans: &[Plan]) -> Vec<Plan> {
    let seed = std::env::var("KIMI_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut chosen = Vec::new();
    for class in Class::ALL {
        let mut of_class: Vec<&Plan> = plans
            .iter()
            .filter(|plan| plan.class() == Some(class))
            .collect();
        of_class.sort_by_key(|plan| short_hash(&format!("{seed} {plan}")));
        chosen.extend(of_class.into_iter().take(SAMPLE).cloned());
    }
    chosen
}

fn recorded(file: &PathBuf) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("survived\t"));
    lines.map(str::to_owned).collect()
}

fn record(file: Option<&PathBuf>, plan: &Plan) {
    let Some(file) = file else { return };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    writeln!(file, "survived\t{plan}").unwrap();
}
