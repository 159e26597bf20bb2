//! The error object, and the specification's codes.

use serde::Serialize;

use super::version::Version;
use crate::{
    ipam::{state::NoAddress, store::StoreError},
    node::NodeError,
};

/// Codes 1 to 99 are the specification's, the others ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    IncompatibleVersion = 1,
    UnsupportedField = 2,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// STATUS: no ADD can be served.
    NotAvailable = 50,
    /// STATUS: no ADD can be served, and running pods may be cut off.
    LimitedConnectivity = 51,
    /// CHECK found what is not as ADD left it.
    NotAsAdded = 100,
    AddressesExhausted = 101,
    /// The kernel refused a link, an address, a route or a program.
    Kernel = 102,
    JournalDamaged = 103,
    KernelTooOld = 104,
}

/// What goes wrong, for the runtime and the person behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if .details.is_empty() { "" } else { ": " })]
pub struct CniError {
    pub code: Code,
    pub msg: String,
    pub details: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

impl CniError {
    pub fn new(code: Code, msg: impl Into<String>) -> CniError {
        CniError {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    pub fn details(mut self, details: impl Into<String>) -> CniError {
        self.details = details.into();
        self
    }

    /// The object as it goes to standard output. `version` is the request's, as far as it was
    /// understood.
    pub fn to_json(&self, version: Option<Version>) -> String {
        let object = Object {
            cni_version: version.unwrap_or(Version::NEWEST).text(),
            code: self.code as u32,
            msg: &self.msg,
            details: &self.details,
        };
        // Strings and numbers only: serializing them can't fail.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

impl From<NodeError> for CniError {
    fn from(e: NodeError) -> CniError {
        let code = match &e {
            NodeError::Missing(_) => Code::TryAgainLater,
            NodeError::Read { .. } | NodeError::Write { .. } => Code::Io,
            NodeError::Decode { .. } => Code::Decode,
            NodeError::Invalid { .. } => Code::InvalidConfig,
        };
        CniError::new(code, e.to_string())
    }
}

impl From<StoreError> for CniError {
    fn from(e: StoreError) -> CniError {
        let code = match &e {
            StoreError::Damaged { .. } | StoreError::Contradiction(_) => Code::JournalDamaged,
            StoreError::Io { .. } | StoreError::Encode(_) | StoreError::BootId { .. } => Code::Io,
        };
        CniError::new(code, e.to_string())
    }
}

impl From<NoAddress> for CniError {
    fn from(e: NoAddress) -> CniError {
        let code = match e {
            NoAddress::Elsewhere { .. } => Code::InvalidConfig,
            NoAddress::Exhausted(_) | NoAddress::Held { .. } => Code::AddressesExhausted,
        };
        CniError::new(code, e.to_string())
            .details("delete pods of this node, or give the node a further pod CIDR")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_the_specifications() {
        let e = CniError::new(Code::TryAgainLater, "not \"yet\"").details("d");
        assert_eq!(
            e.to_json(Some(Version::V0_4_0)),
            r#"{"cniVersion":"0.4.0","code":11,"msg":"not \"yet\"","details":"d"}"#
        );
        let e = CniError::new(Code::Decode, "m");
        assert_eq!(
            e.to_json(None),
            r#"{"cniVersion":"1.1.0","code":6,"msg":"m"}"#
        );
    }
}
