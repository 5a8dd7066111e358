//! The inspect report's way through a termination message: short enough never to be cut, and trusted only after every
//! number was checked. It must not know headers, plans or Kubernetes.

use crate::facts::{
    Class, ClassRow, ExpertSize, Facts, FactsError, Failure, InspectReport, MAX_REPORT_BYTES,
    MIXED, check,
};

/// Expert sizes kept apart: more are merged upwards, which only makes a plan safer.
const MAX_EXPERT_SIZES: usize = 16;

impl InspectReport {
    /// A report of failure.
    pub fn error(reason: &str, message: &str) -> InspectReport {
        InspectReport::Error(Failure {
            reason: reason.to_owned(),
            message: message.to_owned(),
        })
    }

    /// JSON of less than [`MAX_REPORT_BYTES`]: small histogram rows are merged, or the message shortened, until it is.
    pub fn to_json(&self) -> String {
        let mut report = self.clone();
        loop {
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() < MAX_REPORT_BYTES || !shorten(&mut report, json.len()) {
                return json;
            }
        }
    }

    /// Reads a report back. Errors name the field and its bound.
    pub fn parse(json: &str) -> Result<InspectReport, FactsError> {
        let report: InspectReport = from_json(json)?;
        match &report {
            InspectReport::Facts(facts) => check(facts)?,
            InspectReport::Error(failure) => {
                let word = !failure.reason.is_empty()
                    && failure.reason.len() <= 64
                    && failure.reason.chars().all(|c| c.is_ascii_alphanumeric());
                if !word {
                    return Err(FactsError::field(
                        "reason",
                        "is not one word of at most 64 letters",
                    ));
                }
            }
        }
        Ok(report)
    }
}

impl Facts {
    /// The facts alone as JSON of less than [`MAX_REPORT_BYTES`], for an annotation.
    pub fn to_json(&self) -> String {
        let mut facts = self.clone();
        loop {
            let json = serde_json::to_string(&facts).unwrap_or_default();
            if json.len() < MAX_REPORT_BYTES || !shorten_facts(&mut facts) {
                return json;
            }
        }
    }

    /// Reads facts back and checks them like [`InspectReport::parse`].
    pub fn parse(json: &str) -> Result<Facts, FactsError> {
        let facts: Facts = from_json(json)?;
        check(&facts)?;
        Ok(facts)
    }
}

fn from_json<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T, FactsError> {
    if json.len() > MAX_REPORT_BYTES {
        return Err(FactsError::TooLong(json.len()));
    }
    serde_json::from_str(json).map_err(|error| FactsError::Json(error.to_string()))
}

/// Takes something out of the report; false when nothing is left to take.
fn shorten(report: &mut InspectReport, len: usize) -> bool {
    match report {
        InspectReport::Facts(facts) => shorten_facts(facts),
        InspectReport::Error(failure) => {
            let keep = failure.message.chars().count();
            // JSON escapes make a character up to twelve bytes, so cut by at least the excess over twelve.
            let cut = (len - MAX_REPORT_BYTES) / 12 + 1;
            failure.message = failure
                .message
                .chars()
                .take(keep.saturating_sub(cut))
                .collect();
            keep > 0
        }
    }
}

fn shorten_facts(facts: &mut Facts) -> bool {
    if facts.expert_sizes.len() > MAX_EXPERT_SIZES {
        merge_closest_sizes(&mut facts.expert_sizes);
        return true;
    }
    merge_smallest_rows(&mut facts.classes)
}

/// Replaces the two neighbouring sizes that are closest by the larger one.
fn merge_closest_sizes(sizes: &mut Vec<ExpertSize>) {
    sizes.sort_by_key(|size| size.bytes);
    let closest = (1..sizes.len()).min_by_key(|&i| sizes[i].bytes - sizes[i - 1].bytes);
    if let Some(i) = closest {
        sizes[i].count = sizes[i].count.saturating_add(sizes[i - 1].count);
        sizes.remove(i - 1);
    }
}

/// Merges the two smallest rows of the class that has most rows; sums per class do not change.
fn merge_smallest_rows(rows: &mut Vec<ClassRow>) -> bool {
    let count = |class: Class| rows.iter().filter(|row| row.class == class).count();
    let Some(class) = rows
        .iter()
        .map(|row| row.class)
        .max_by_key(|class| count(*class))
    else {
        return false;
    };
    let mut of_class: Vec<usize> = (0..rows.len())
        .filter(|&i| rows[i].class == class)
        .collect();
    of_class.sort_by_key(|&i| rows[i].bytes);
    let (&[first, second], true) = (
        of_class.as_slice().first_chunk().unwrap_or(&[0, 0]),
        of_class.len() > 1,
    ) else {
        return false;
    };
    let taken = rows[first].clone();
    let kept = &mut rows[second];
    kept.dtype = MIXED.to_owned();
    kept.count = kept.count.saturating_add(taken.count);
    kept.bytes = kept.bytes.saturating_add(taken.bytes);
    rows.remove(first);
    true
}
