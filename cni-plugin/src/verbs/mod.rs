//! What each CNI command does.

mod add;
mod check;
mod clean;
mod status;

use std::io::Read;

use crate::{
    attachment::Key,
    attachments::AttachmentsError,
    ipam::store::StoreError,
    kernel::{attach::AttachError, netns::NetnsError, wire::WireError},
    spec::{
        config::{self, Config},
        env::{self, Command},
        error::{CniError, Code},
    },
};

/// A configuration is a few kilobytes; GC's lists every attachment of a node.
const INPUT: u64 = 16 * 1024 * 1024;

/// Runs one command. Returns what goes to standard output, and the exit status.
pub fn run(var: &dyn Fn(&str) -> Option<String>, stdin: impl Read) -> (String, u8) {
    let mut input = Vec::new();
    let read = stdin.take(INPUT).read_to_end(&mut input);
    let result = match read {
        Ok(_) => dispatch(var, &input),
        Err(e) => Err(CniError::new(
            Code::Io,
            format!("reading the network configuration from standard input: {e}"),
        )),
    };
    match result {
        Ok(output) => (output, 0),
        Err(e) => (e.to_json(config::version_of(&input)), 1),
    }
}

fn dispatch(var: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Result<String, CniError> {
    let command = env::command(var)?;
    if command == Command::Version {
        return Ok(config::versions(input));
    }
    let target = match command {
        Command::Add | Command::Del | Command::Check => Some(env::target(command, var)?),
        _ => None,
    };
    let config = Config::parse(command, input)?;
    match (command, target) {
        (Command::Add, Some(target)) => add::add(&config, &target).map(|r| r.to_string()),
        (Command::Check, Some(target)) => check::check(&config, &target).map(|()| String::new()),
        (Command::Del, Some(target)) => {
            let key = Key::new(target.container_id, target.ifname);
            clean::del(&config, &key).map(|()| String::new())
        }
        (Command::Gc, _) => clean::gc(&config).map(|()| String::new()),
        (Command::Status, _) => status::status(&config).map(|()| String::new()),
        // VERSION has been answered, and the three others always have a target.
        _ => Ok(String::new()),
    }
}

impl From<NetnsError> for CniError {
    fn from(e: NetnsError) -> CniError {
        let code = match &e {
            NetnsError::Missing(_) => Code::UnknownContainer,
            NetnsError::NotOne(_) | NetnsError::Own(_) => Code::InvalidEnvironment,
            NetnsError::Open { .. } => Code::Io,
        };
        CniError::new(code, e.to_string())
    }
}

impl From<AttachError> for CniError {
    fn from(e: AttachError) -> CniError {
        let code = match &e {
            AttachError::NotLoaded(_) | AttachError::Abi { .. } => Code::TryAgainLater,
            AttachError::KernelTooOld => Code::KernelTooOld,
            AttachError::Pin { .. } | AttachError::Attach { .. } | AttachError::Map { .. } => {
                Code::Kernel
            }
        };
        CniError::new(code, e.to_string())
    }
}

impl From<WireError> for CniError {
    fn from(e: WireError) -> CniError {
        CniError::new(Code::Kernel, e.to_string())
    }
}

impl From<AttachmentsError> for CniError {
    fn from(e: AttachmentsError) -> CniError {
        match e {
            AttachmentsError::Store(e) => StoreError::into(e),
            AttachmentsError::Attach(e) => e.into(),
            AttachmentsError::Wire(e) => e.into(),
            e @ (AttachmentsError::Netlink(_)
            | AttachmentsError::TakeDown { .. }
            | AttachmentsError::Repair(_)) => CniError::new(Code::Kernel, e.to_string()),
            e @ (AttachmentsError::Behind(_) | AttachmentsError::Unnamed(_)) => {
                CniError::new(Code::JournalDamaged, e.to_string())
            }
        }
    }
}
