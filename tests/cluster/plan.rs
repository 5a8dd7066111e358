//! Which faults there are to survive: every write of a life with everything that can happen to a write, and every kind
//! of object with views of it that lag or miss something. It must know no cluster.

use std::fmt;

use crate::life::{Outcome, PHASES};
use crate::wire::{Fault, Write};

/// Kinds that the operator watches, by their names in URLs.
const KINDS: [&str; 7] = [
    "kimimodels",
    "jobs",
    "pods",
    "persistentvolumeclaims",
    "deployments",
    "services",
    "endpointslices",
];

/// One life with one thing that goes wrong in it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) blow: Blow,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Blow {
    Nothing,
    Write {
        write: Write,
        fault: Fault,
    },
    /// The operator restarts in a phase and first sees the objects of a kind, or of all, as they were a phase ago.
    Stale {
        phase: &'static str,
        kind: Option<&'static str>,
    },
    /// The operator hears nothing of a kind for the first seconds of a phase, and never hears what it missed.
    Unseen {
        phase: &'static str,
        kind: &'static str,
    },
}

/// The classes that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    CrashPoint,
    WriteFault,
    StaleView,
    MissedEvents,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [
        Self::CrashPoint,
        Self::WriteFault,
        Self::StaleView,
        Self::MissedEvents,
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrashPoint => "crash points survived",
            Self::WriteFault => "lost, refused and late writes survived",
            Self::StaleView => "stale views survived",
            Self::MissedEvents => "missed events survived",
        })
    }
}

impl Plan {
    pub(crate) fn nothing() -> Self {
        Self {
            blow: Blow::Nothing,
        }
    }

    /// `None` for a life without a blow.
    pub(crate) fn class(&self) -> Option<Class> {
        match &self.blow {
            Blow::Nothing => None,
            Blow::Write { fault, .. } => match fault {
                Fault::KillBefore | Fault::KillAfter => Some(Class::CrashPoint),
                Fault::Refuse(_) | Fault::Drop | Fault::LoseAnswer | Fault::Delay => {
                    Some(Class::WriteFault)
                }
            },
            Blow::Stale { .. } => Some(Class::StaleView),
            Blow::Unseen { .. } => Some(Class::MissedEvents),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.blow {
            Blow::Nothing => f.write_str("nothing"),
            Blow::Write { write, fault } => write!(f, "{write}: {fault:?}"),
            Blow::Stale { phase, kind } => {
                write!(
                    f,
                    "{phase}: restart with an old view of {}",
                    kind.unwrap_or("everything")
                )
            }
            Blow::Unseen { phase, kind } => write!(f, "{phase}: {kind} unseen"),
        }
    }
}

/// Everything that can go wrong once in the life that `whole` is.
pub(crate) fn all(whole: &Outcome) -> Vec<Plan> {
    let faults = [
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::Refuse(409),
        Fault::Refuse(500),
        Fault::Drop,
        Fault::LoseAnswer,
        Fault::Delay,
    ];
    let mut blows = Vec::new();
    for fault in faults {
        let hit = |write: &Write| Blow::Write {
            write: write.clone(),
            fault,
        };
        blows.extend(whole.writes.iter().map(hit));
    }
    for (phase, _) in PHASES {
        let some = KINDS.into_iter().map(Some);
        let views = some.chain([None]);
        blows.extend(views.map(|kind| Blow::Stale { phase, kind }));
        blows.extend(KINDS.into_iter().map(|kind| Blow::Unseen { phase, kind }));
    }
    blows.into_iter().map(|blow| Plan { blow }).collect()
}
