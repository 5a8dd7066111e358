//! What can go wrong, as data: the JSON that `--faults` and `PUT /admin/faults` take. Knows when a fault applies, not
//! how the handlers act it out.

use serde::{Deserialize, Serialize};

/// All faults in force. `{}` is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// Speed of all file content together; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Tried in order; the first that applies to a request is used up by one.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One fault and the requests it hits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    pub on: Place,
    pub fault: Fault,
    /// Only paths that contain this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many requests it hits; every one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Metadata: `/api/...`.
    Api,
    /// `/OWNER/REPO/resolve/...` on the hub.
    Resolve,
    /// Signed URLs on the second authority.
    Cdn,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// An error status; 429 and 503 may say how long to wait, in either of the hub's two headers.
    #[serde(rename_all = "camelCase")]
    Status {
        code: u16,
        #[serde(default)]
        retry_after: Option<u64>,
        /// Seconds for the `t=` of a `RateLimit` header.
        #[serde(default)]
        rate_limit: Option<u64>,
    },
    /// Sends this many body bytes, then nothing, with the connection open.
    #[serde(rename_all = "camelCase")]
    Stall { after_bytes: u64 },
    /// Sends this many body bytes, then closes the connection.
    #[serde(rename_all = "camelCase")]
    Cut { after_bytes: u64 },
    /// Flips a bit of the first body byte.
    Corrupt,
    /// Answers as for a URL whose time has passed.
    Expired,
    /// Claims and sends a file shorter by this many bytes.
    Truncate { bytes: u64 },
    /// Claims and sends a file longer by this many zero bytes.
    Oversize { bytes: u64 },
    /// Ignores the `Range` header: 200 with the whole file.
    IgnoreRange,
}

impl Faults {
    /// The fault for a request, used up by one.
    pub(crate) fn take(&mut self, on: Place, path: &str) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.on == on
                && rule.count != Some(0)
                && rule
                    .path
                    .as_ref()
                    .is_none_or(|part| path.contains(part.as_str()))
        })?;
        if let Some(left) = &mut rule.count {
            *left -= 1;
        }
        Some(rule.fault.clone())
    }
}
