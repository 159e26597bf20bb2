//! DEL and GC.

use std::collections::HashSet;

use crate::{
    agent::{self, Op, Request},
    attachment::{Attachment, Key},
    attachments::Attachments,
    spec::{
        config::Config,
        error::{CniError, Code},
    },
};

/// DEL: succeeds also where there is nothing (left) to delete.
pub fn del(config: &Config, key: &Key) -> Result<(), CniError> {
    let attachments = Attachments::open(&config.paths)?;
    take_down(&attachments, key)?;
    Ok(())
}

fn take_down(attachments: &Attachments, key: &Key) -> Result<(), CniError> {
    // Waits for an ADD that is still under way, and then undoes it.
    let own = attachments.store().lock_attachment(key)?;
    let mut locked = attachments.lock()?;
    attachments.sweep(&mut locked, Some(key))?;
    let known = locked.get(key).cloned();
    attachments.take_down(&own, locked, key)?;
    if let Some(a) = known {
        tell(attachments, &a);
    }
    Ok(())
}

/// The agent also sees the journal change; telling it only saves it the waiting.
fn tell(attachments: &Attachments, a: &Attachment) {
    let patience = std::time::Duration::from_millis(200);
    let request = Request::new(Op::Del, a);
    agent::tell(&attachments.paths().agent_socket(), &request, patience);
}

/// GC: takes down what the runtime doesn't name, and finishes what was left unfinished. An
/// attachment that some process works on is not stale.
pub fn gc(config: &Config) -> Result<(), CniError> {
    let attachments = Attachments::open(&config.paths)?;
    let valid: HashSet<&Key> = config.valid_attachments.iter().flatten().collect();
    let mut locked = attachments.lock()?;
    attachments.sweep(&mut locked, None)?;
    let stale: Vec<Key> = locked
        .state()
        .attachments
        .iter()
        .filter(|(key, a)| a.network == config.name && !valid.contains(key))
        .map(|(key, _)| key.clone())
        .collect();
    drop(locked);
    let mut errors = Vec::new();
    for key in stale {
        match attachments.store().try_lock_attachment(&key) {
            Ok(None) => continue,
            Ok(Some(lock)) => drop(lock),
            Err(e) => return Err(e.into()),
        }
        if let Err(e) = take_down(&attachments, &key) {
            errors.push(e.to_string());
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(CniError::new(
            Code::Kernel,
            format!("{} stale attachments could not be taken down", errors.len()),
        )
        .details(errors.join("; "))),
    }
}
