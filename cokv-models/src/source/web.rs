//! Small files of the web outside of the hub.

use super::{FetchOptions, SourceError};

/// Larger answers are no configuration file.
#[cfg(feature = "hub")]
const MOST_BYTES: u64 = 10 << 20;

/// Reads a whole file of at most 10 MiB. `HF_TOKEN` is not sent: it is for the hub only.
///
/// # Errors
///
/// Names the address and says what the server or the network said.
#[cfg(feature = "hub")]
pub fn read_web_file(address: &str, options: &FetchOptions) -> Result<Vec<u8>, SourceError> {
    let fail = |reason: String| SourceError::Web { address: address.to_owned(), reason };
    if options.hub_offline {
        return Err(fail("HF_HUB_OFFLINE forbids it; unset HF_HUB_OFFLINE".to_owned()));
    }
    let at_start = Some(options.patience_at_start());
    let agent = ureq::Agent::config_builder()
        .timeout_resolve(at_start)
        .timeout_connect(at_start)
        .timeout_recv_response(at_start)
        .timeout_per_read(Some(options.patience))
        .build()
        .new_agent();
    let read = || agent.get(address).call()?.into_body().with_config().limit(MOST_BYTES).read_to_vec();
    read().map_err(|error| fail(explain(error, options)))
}

/// This build has no client: it is an error.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "hub"))]
pub fn read_web_file(address: &str, _options: &FetchOptions) -> Result<Vec<u8>, SourceError> {
    let reason = "this build cannot download; build with the cargo feature `hub` (it is on by default)".to_owned();
    Err(SourceError::Web { address: address.to_owned(), reason })
}

#[cfg(feature = "hub")]
fn explain(error: ureq::Error, options: &FetchOptions) -> String {
    const NETWORK: &str = "check the network and HTTPS_PROXY";
    match error {
        ureq::Error::StatusCode(404) => "there is no such file (status 404)".to_owned(),
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            format!("the server refuses access (status {status}), and HF_TOKEN is sent to the hub only")
        }
        ureq::Error::StatusCode(status) => format!("status {status}; try again later"),
        ureq::Error::Timeout(_) => format!("nothing arrived for up to {:?}; {NETWORK}", options.patience),
        ureq::Error::BodyExceedsLimit(limit) => format!("the answer is longer than {limit} bytes"),
        other => format!("{other}; {NETWORK}, and run again"),
    }
}
