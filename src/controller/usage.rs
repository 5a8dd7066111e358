//! What a server pod measured of itself, at `/usage`: bounded, and for the status only. It must not know how a page is asked
//! for, nor what was planned.

use std::time::Duration;

use serde::Deserialize;

use super::page::{Answer, Error, Pages};

/// A pod is asked at most this often.
const INTERVAL: Duration = Duration::from_secs(60);

/// One measurement. Absent is what the pod cannot know, or does not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// As the kubelet counts it: mapped weights in use are part of it.
    #[serde(default)]
    pub working_set_bytes: Option<u64>,
    #[serde(default)]
    pub anonymous_bytes: Option<u64>,
    #[serde(default)]
    pub limit_bytes: Option<u64>,
    #[serde(default)]
    pub milli_tokens_per_second: Option<u64>,
    #[serde(default)]
    pub major_faults_per_token: Option<u64>,
    /// The pod's own verdict on its faults.
    #[serde(default)]
    pub thrashing: bool,
    /// A file of the weights that is not what was loaded.
    #[serde(default)]
    pub weights_changed: Option<String>,
}

/// Asks server pods.
#[derive(Debug)]
pub struct Meter {
    pages: Pages<Usage>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            pages: Pages::new("/usage", INTERVAL, |body| {
                serde_json::from_slice(body).map_err(Error::Json)
            }),
        }
    }
}

impl Meter {
    /// The usage of the pod with this UID at this address, a minute old at most while it answers.
    pub async fn read(&self, pod_uid: &str, pod_ip: &str) -> Option<Usage> {
        match self.pages.ask(pod_uid, pod_ip).await {
            Answer::Fresh { page, .. } => Some(page),
            Answer::Remembered(usage) | Answer::Silent(usage) => usage,
        }
    }
}
