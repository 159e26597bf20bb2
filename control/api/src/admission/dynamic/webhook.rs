//! One webhook of a configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::expression::Environment;
use super::{Conditions, Constraints};
use crate::json::{at, int, list, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

impl FailurePolicy {
    pub fn of(value: &Value) -> FailurePolicy {
        match text(value, "failurePolicy") {
            "Ignore" => FailurePolicy::Ignore,
            _ => FailurePolicy::Fail,
        }
    }
}

/// Where a webhook is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientConfig {
    Url(String),
    Service {
        namespace: String,
        name: String,
        port: u16,
        path: String,
    },
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub name: String,
    /// Configuration, and place in it: which webhook was asked already.
    pub id: String,
    pub constraints: Constraints,
    pub conditions: Conditions,
    pub client: ClientConfig,
    /// PEM; empty for the system's authorities.
    pub ca_bundle: Vec<u8>,
    pub failure: FailurePolicy,
    pub timeout_seconds: u64,
    /// Whether it may be asked for a dry run.
    pub dry_runs: bool,
    /// `v1` or `v1beta1`, whichever it names first.
    pub review_version: &'static str,
    /// Whether it is asked again when a later one has changed the object.
    pub reinvoke: bool,
}

/// The webhooks of a stored configuration, in order.
pub fn webhooks(configuration: &Value) -> Vec<Webhook> {
    let configuration_name = text(configuration, "metadata.name");
    list(configuration, "webhooks")
        .iter()
        .enumerate()
        .map(|(i, hook)| Webhook {
            name: text(hook, "name").to_string(),
            id: format!("{configuration_name}/{i}"),
            constraints: Constraints::of_webhook(hook),
            conditions: Conditions::of(hook, &Environment::of_webhook()),
            client: client(hook),
            ca_bundle: STANDARD
                .decode(text(hook, "clientConfig.caBundle"))
                .unwrap_or_default(),
            failure: FailurePolicy::of(hook),
            timeout_seconds: int(hook, "timeoutSeconds")
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(10),
            dry_runs: matches!(text(hook, "sideEffects"), "None" | "NoneOnDryRun"),
            review_version: list(hook, "admissionReviewVersions")
                .iter()
                .filter_map(Value::as_str)
                .find_map(|v| match v {
                    "v1" => Some("v1"),
                    "v1beta1" => Some("v1beta1"),
                    _ => None,
                })
                .unwrap_or("v1"),
            reinvoke: text(hook, "reinvocationPolicy") == "IfNeeded",
        })
        .collect()
}

fn client(hook: &Value) -> ClientConfig {
    let service = |field: &str| text(hook, &format!("clientConfig.service.{field}")).to_string();
    match at(hook, "clientConfig.url").and_then(Value::as_str) {
        Some(url) => ClientConfig::Url(url.to_string()),
        None => ClientConfig::Service {
            namespace: service("namespace"),
            name: service("name"),
            port: int(hook, "clientConfig.service.port")
                .and_then(|p| u16::try_from(p).ok())
                .unwrap_or(443),
            path: service("path"),
        },
    }
}
